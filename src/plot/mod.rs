//! Pictures as SVG text: the loss curve of a training run, the receptive field of a network, the rate of many streams.

mod canvas;
mod loss;
mod receptive_field;
mod receptive_field_2d;
mod streams;

pub(crate) use canvas::grouped;
pub use loss::{LossPoint, loss_svg};
pub use receptive_field::{effective_field_svg, receptive_field_svg};
pub use receptive_field_2d::receptive_field_2d_svg;
pub use streams::streams_svg;
