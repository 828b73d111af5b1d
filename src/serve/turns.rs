//! A queue in which clients take turns.

use std::collections::VecDeque;

/// Waiting items by client: the next of each client in turn, so that a client with a thousand requests does not hold up
/// one with a single one.
#[derive(Debug)]
pub(super) struct Turns<T> {
    clients: VecDeque<(String, VecDeque<T>)>,
}

impl<T> Turns<T> {
    pub fn new() -> Self {
        Self { clients: VecDeque::new() }
    }

    pub fn push(&mut self, client: &str, item: T) {
        match self.clients.iter_mut().find(|(name, _)| name == client) {
            Some((_, items)) => items.push_back(item),
            None => self.clients.push_back((client.to_string(), VecDeque::from([item]))),
        }
    }

    /// The one whose turn it is.
    pub fn peek(&self) -> Option<&T> {
        self.clients.front().and_then(|(_, items)| items.front())
    }

    pub fn pop(&mut self) -> Option<T> {
        let (client, mut items) = self.clients.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.clients.push_back((client, items));
        }
        item
    }

    /// Drops those that are not `wanted` any more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        self.clients.iter_mut().for_each(|(_, items)| items.retain(&mut wanted));
        self.clients.retain(|(_, items)| !items.is_empty());
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Takes all.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(&mut self.clients).into_iter().flat_map(|(_, items)| items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns() {
        let mut turns = Turns::new();
        for (client, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            turns.push(client, item);
        }
        turns.retain(|item| *item != 5);
        assert_eq!(turns.peek(), Some(&1));
        let order: Vec<i32> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [1, 4, 2, 6, 3]);
        assert!(turns.is_empty() && turns.drain().next().is_none());
    }
}
