//! Numbers on the command line that may differ along the two axes of an image.

use candle_tcn::geometry::MAX_LAYERS;

use crate::flags::count;

/// A number along each axis.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Along the height, or in time; along the width.
    pub along: [usize; 2],
    /// `true` if both were given.
    pub is_pair: bool,
}

impl Size {
    fn square(side: usize) -> Self {
        Self { along: [side; 2], is_pair: false }
    }
}

/// The value of a list; `Vec` by its own name would be a repeated flag to clap.
pub type List = Vec<Size>;

/// `3`, or `3x5`: height, then width.
pub fn one(text: &str) -> Result<Size, String> {
    let text = text.trim();
    match text.split_once('x') {
        None => count(text).map(Size::square),
        Some((height, width)) => Ok(Size { along: [count(height)?, count(width)?], is_pair: true }),
    }
}

/// Numbers and doubling ranges, separated by commas: `1,2,4`, `1..128`, `1..8,1..8`, `1,2x4`.
pub fn list(text: &str, name: &str) -> Result<List, String> {
    if text.trim().is_empty() {
        return Err(format!("expected at least one {name}, such as 1,2,4 or 1..128"));
    }
    let mut list = Vec::new();
    for item in text.split(',').map(str::trim) {
        match item.split_once("..") {
            None => list.push(in_it(item, one)?),
            Some((first, last)) => {
                let range = doubling(in_it(first, count)?, in_it(last, count)?)?;
                list.extend(range.into_iter().map(Size::square));
            }
        }
        if list.len() > MAX_LAYERS {
            return Err(format!("expected at most {MAX_LAYERS} {name}s"));
        }
    }
    Ok(list)
}

fn in_it<T>(item: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    parse(item.trim()).map_err(|expected| format!("'{item}' in it: {expected}"))
}

/// `first`, twice that, and so on up to `last`.
fn doubling(first: usize, last: usize) -> Result<Vec<usize>, String> {
    let double = |dilation: &usize| dilation.checked_mul(2).filter(|&next| next <= last);
    let list: Vec<usize> = std::iter::successors(Some(first), double).collect();
    match list.last() {
        Some(&end) if end == last => Ok(list),
        _ => Err(format!(
            "{first}..{last} doubles from {first} and does not come to {last}; list the numbers with \
             commas"
        )),
    }
}
