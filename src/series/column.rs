//! Columns: numbers, or the names of categories.

use serde::{Deserialize, Serialize};

/// A value of each step.
///
/// # Example
///
/// ```
/// use candle_tcn::series::Column;
/// let wind = Column { categories: vec!["calm".into(), "storm".into()], ..Column::of_numbers("wind") };
/// assert_eq!((wind.width(), Column::of_numbers("depth").width()), (2, 1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Names of the categories that its values number; none where they are numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

impl Column {
    /// A column of numbers.
    pub fn of_numbers(name: impl Into<String>) -> Self {
        Self { name: name.into(), categories: Vec::new() }
    }

    /// `true` if its values are numbers.
    pub fn is_of_numbers(&self) -> bool {
        self.categories.is_empty()
    }

    /// Number of a network's inputs that it becomes: one for each category.
    pub fn width(&self) -> usize {
        self.categories.len().max(1)
    }
}
