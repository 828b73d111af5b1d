//! The tokens of a vocabulary in the order of their bytes.

/// Clears the flag of `id`; `true` if it was set.
pub(super) fn clear(allowed: &mut [bool], id: u32) -> bool {
    allowed.get_mut(id as usize).is_some_and(std::mem::take)
}

/// The bytes of every id, and the ids in the order of their bytes.
#[derive(Debug)]
pub(super) struct SortedTokens {
    bytes: Vec<Box<[u8]>>,
    order: Vec<u32>,
    /// For each place in `order`, how many bytes its token shares with the one before it.
    shared: Vec<usize>,
}

impl SortedTokens {
    pub fn new(bytes: &[Box<[u8]>]) -> Self {
        let bytes = bytes.to_vec();
        let mut order: Vec<u32> = (0..bytes.len() as u32).collect();
        order.sort_by_key(|&id| &bytes[id as usize]);
        let shared = |at: usize| {
            let before: &[u8] = match at {
                0 => &[],
                _ => &bytes[order[at - 1] as usize],
            };
            let pairs = before.iter().zip(&bytes[order[at] as usize]);
            pairs.take_while(|(a, b)| a == b).count()
        };
        Self { shared: (0..order.len()).map(shared).collect(), order, bytes }
    }

    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// Ids and bytes in order, each with how many bytes it shares with the one before it.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8], usize)> {
        let order = self.order.iter().zip(&self.shared);
        order.map(|(&id, &shared)| (id, self.bytes(id), shared))
    }

    /// The ids of tokens that begin with `prefix`.
    pub fn beginning_with(&self, prefix: &[u8]) -> &[u32] {
        let start = self.order.partition_point(|&id| self.bytes(id) < prefix);
        let rest = &self.order[start..];
        &rest[..rest.partition_point(|&id| self.bytes(id).starts_with(prefix))]
    }

    /// The ids of tokens that contain one of `strings`.
    pub fn containing(&self, strings: &[String]) -> Vec<u32> {
        let contains = |&id: &u32| {
            let is_in = |string: &String| {
                self.bytes(id).windows(string.len()).any(|part| part == string.as_bytes())
            };
            strings.iter().any(is_in)
        };
        (0..self.bytes.len() as u32).filter(contains).collect()
    }
}
