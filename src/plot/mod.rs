//! Pictures as SVG text: the loss curve of a training run, the receptive field of a network, the rate of many streams,
//! classes and what was said of them, forecasts.

mod canvas;
mod confusion;
mod forecast;
mod loss;
mod receptive_field;
mod receptive_field_2d;
mod streams;

pub(crate) use canvas::grouped;
pub use confusion::confusion_svg;
pub use forecast::{ForecastPath, forecast_svg};
pub use loss::{LossPoint, loss_svg};
pub use receptive_field::{effective_field_svg, receptive_field_svg};
pub use receptive_field_2d::receptive_field_2d_svg;
pub use streams::streams_svg;
