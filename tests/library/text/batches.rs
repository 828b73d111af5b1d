//! The windows of both modes, seen from their tokens.

use candle_tcn::text::{BatchMode, BatchPosition, Batches, TokenWindows};

fn batches(tokens: u32, batch_size: usize, seq_len: usize, mode: BatchMode) -> Batches {
    Batches::new((0..tokens).collect::<Vec<_>>(), batch_size, seq_len, mode, 7).unwrap()
}

/// Row `row` of `values`.
fn row(values: &[u32], seq_len: usize, row: usize) -> &[u32] {
    &values[row * seq_len..(row + 1) * seq_len]
}

#[test]
fn carry_streams_are_contiguous_parts_of_the_text() {
    let (batch_size, seq_len) = (3, 5);
    let mut batches = batches(100, batch_size, seq_len, BatchMode::Carry);
    // 16 for the first batch, 4 kept free, then 80 / 15
    assert_eq!(batches.steps_per_epoch(), 6);
    let mut starts = std::collections::BTreeSet::new();
    for epoch in 0..20 {
        let mut streams = vec![Vec::new(); batch_size];
        for index in 0..6 {
            let batch = batches.next_windows().unwrap();
            assert_eq!((batch.epoch, batch.index), (epoch, index));
            assert_eq!((batch.starts_fresh, batch.scored_from), (index == 0, 0));
            for (b, stream) in streams.iter_mut().enumerate() {
                let inputs = row(&batch.inputs, seq_len, b);
                let shifted: Vec<u32> = inputs.iter().map(|id| id + 1).collect();
                assert_eq!(row(&batch.targets, seq_len, b), shifted);
                stream.extend_from_slice(inputs);
            }
        }
        // token i is the number i: the streams joined are one run of the text
        let start = streams[0][0];
        assert_eq!(streams.concat(), (start..start + 90).collect::<Vec<_>>());
        starts.insert(start);
    }
    assert!(starts.len() > 3 && *starts.last().unwrap() <= 9, "{starts:?}");
}

#[test]
fn overlap_scores_a_token_once() {
    let (batch_size, seq_len, history) = (2, 7, 3);
    let mut batches = batches(60, batch_size, seq_len, BatchMode::Overlap { history });
    let steps = batches.steps_per_epoch();
    // 12 for the first batch, 3 kept free, then 45 / 8
    assert_eq!(steps, 6);
    let mut orders = Vec::new();
    for _ in 0..5 {
        let mut scored = Vec::new();
        for _ in 0..steps {
            let batch = batches.next_windows().unwrap();
            assert!(batch.starts_fresh);
            let count: f32 = batch.weights().expect("some do not count").iter().sum();
            assert_eq!((batch.scored_from, count), (3, 8.0));
            for b in 0..batch_size {
                assert_eq!(
                    row(&batch.inputs, seq_len, b)[1..],
                    row(&batch.targets, seq_len, b)[..6]
                );
                scored.extend_from_slice(&row(&batch.targets, seq_len, b)[history..]);
            }
        }
        let order = scored.clone();
        scored.sort_unstable();
        let first = scored[0];
        assert!(first >= 4);
        assert_eq!(scored, (first..first + 48).collect::<Vec<_>>());
        assert!(!orders.contains(&order), "epochs are shuffled differently");
        orders.push(order);
    }
}

#[test]
fn every_token_is_scored_in_some_epoch() {
    for (mode, unscored) in [(BatchMode::Carry, 1), (BatchMode::Overlap { history: 2 }, 3)] {
        for tokens in 16..50 {
            let mut batches = batches(tokens, 3, 5, mode);
            let mut seen = vec![false; tokens as usize];
            for _ in 0..400 * batches.steps_per_epoch() {
                let batch = batches.next_windows().unwrap();
                for b in 0..3 {
                    for &id in &row(&batch.targets, 5, b)[batch.scored_from..] {
                        seen[id as usize] = true;
                    }
                }
            }
            let missing = seen.iter().filter(|&&seen| !seen).count();
            assert_eq!(missing, unscored, "{mode:?}, {tokens} tokens");
        }
    }
}

#[test]
fn seek_continues_exactly() {
    for mode in [BatchMode::Carry, BatchMode::Overlap { history: 1 }] {
        let mut whole = batches(50, 2, 4, mode);
        let steps = whole.steps_per_epoch();
        let sequence: Vec<(String, TokenWindows)> = (0..4 * steps)
            .map(|_| {
                (serde_json::to_string(&whole.position()).unwrap(), whole.next_windows().unwrap())
            })
            .collect();
        for rest in sequence.windows(steps + 2) {
            let mut resumed = batches(50, 2, 4, mode);
            resumed.seek(serde_json::from_str(&rest[0].0).unwrap()).unwrap();
            for (_, batch) in rest {
                assert_eq!(&resumed.next_windows().unwrap(), batch);
            }
        }
        let end = BatchPosition { epoch: 0, index: steps };
        assert!(whole.seek(end).unwrap_err().to_string().contains("data position"));
    }
}

#[test]
fn the_seed_decides() {
    let sequence = |seed| {
        let mode = BatchMode::Overlap { history: 1 };
        let mut batches = Batches::new((0..50).collect::<Vec<_>>(), 2, 4, mode, seed).unwrap();
        std::iter::repeat_with(|| batches.next_windows().unwrap()).take(20).collect::<Vec<_>>()
    };
    assert_eq!(sequence(1), sequence(1));
    assert_ne!(sequence(1), sequence(2));
}

#[test]
fn bad_sizes_are_errors() {
    let message = |tokens: u32, batch_size, seq_len, mode| {
        Batches::new((0..tokens).collect::<Vec<_>>(), batch_size, seq_len, mode, 0)
            .unwrap_err()
            .to_string()
    };
    let carry = BatchMode::Carry;
    assert!(message(9, 0, 3, carry).starts_with("batch_size"));
    assert!(message(9, 1, 0, carry).starts_with("seq_len"));
    assert!(message(9, 1, 3, BatchMode::Overlap { history: 3 }).starts_with("history"));
    assert_eq!(
        message(12, 3, 4, carry),
        "text: expected at least 13 tokens for one batch (batch_size 3, seq_len 4), \
         found 12"
    );
    assert!(message(0, 1, 1, carry).contains("found 0"));
    for (batch_size, seq_len) in [(usize::MAX, 2), (2, usize::MAX), (usize::MAX, usize::MAX)] {
        assert!(message(9, batch_size, seq_len, carry).starts_with("batch is too large"));
        let overlap = BatchMode::Overlap { history: seq_len - 1 };
        assert!(message(9, batch_size, seq_len, overlap).starts_with("batch is too large"));
    }
    assert!(message(9, 1, usize::MAX, carry).starts_with("batch is too large"));
}
