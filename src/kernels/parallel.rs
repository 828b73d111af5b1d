//! Loops over independent items on all threads. rayon's own loop is compiled anew for every kind of item and work, which
//! takes longer than to compile the work; this one is compiled once.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

/// Runs `work` for each item.
pub fn for_each<T: Send>(mut items: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
    each(&mut items, &work);
}

/// As [`for_each`], compiled once for a type of item.
fn each<T: Send>(items: &mut dyn Iterator<Item = T>, work: &(dyn Fn(T) + Sync)) {
    let mut waiting = Vec::new();
    for item in items {
        waiting.push(Mutex::new(Some(item)));
    }
    run(waiting.len(), &|i| {
        let item = waiting[i].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(item) = item {
            work(item);
        }
    });
}

/// The result of `work` for each item, in their order.
pub fn map<T: Send, R: Send>(
    items: impl Iterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let items: Vec<T> = items.collect();
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    for_each(items.into_iter().zip(&mut results), |(item, result)| *result = Some(work(item)));
    results.into_iter().flatten().collect()
}

fn run(count: usize, work: &(dyn Fn(usize) + Sync)) {
    match count {
        // no other thread need wake up
        1 => work(0),
        _ => (0..count).into_par_iter().for_each(work),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_once_and_results_in_order() {
        for count in [0, 1, 2, 1000] {
            let mut seen = vec![0; count];
            for_each(seen.iter_mut().enumerate(), |(i, seen)| *seen += i + 1);
            assert!(seen.iter().enumerate().all(|(i, &seen)| seen == i + 1));
            assert_eq!(map(0..count, |i| i * i), (0..count).map(|i| i * i).collect::<Vec<_>>());
        }
    }
}
