//! Pictures as SVG text: the loss curve of a training run, the receptive field of a network.

mod loss;
mod receptive_field;
mod receptive_field_2d;

pub use loss::loss_svg;
pub use receptive_field::receptive_field_svg;
pub use receptive_field_2d::receptive_field_2d_svg;

/// A whole number with thousands separators: 12,345.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
