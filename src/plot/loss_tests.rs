use proptest::prelude::*;

use super::*;

fn record(step: usize, train_loss: f64, valid_loss: Option<f64>) -> LossPoint {
    LossPoint { step, train_loss, valid_loss }
}

/// A plausible run: a falling loss with noise, validated every 50 records.
fn run(records: usize) -> Vec<LossPoint> {
    let of = |i: usize| {
        let t = i as f64 / records as f64;
        let curve = 1.35 + 2.9 * (-14.0 * t).exp() + 0.35 * (-3.0 * t).exp();
        let noise = ((i * 7919) % 101) as f64 / 101.0 - 0.5;
        let valid = i.is_multiple_of(50).then_some(curve + 0.05 + 0.25 * t * t);
        record(i * 10, curve + 0.12 * noise, valid)
    };
    (1..=records).map(of).collect()
}

fn count(svg: &str, what: &str) -> usize {
    svg.matches(what).count()
}

#[test]
fn a_run_has_lines_marks_legend_and_its_best_point() {
    let svg = loss_svg(&run(1000)).unwrap();
    for text in ["Training and validation loss", "nats per token", "bits per token", "step"] {
        assert!(svg.contains(text), "{text}");
    }
    assert_eq!(count(&svg, "training, smoothed"), 1);
    assert_eq!(count(&svg, "best "), 1);
    assert!(svg.contains(r#"width="800" height="480""#));
    // 20 validations and the ring, drawn in white and in colour
    assert_eq!(count(&svg, "<circle"), 22);
}

#[test]
fn without_validation_there_is_no_best_point() {
    let svg = loss_svg(&[record(1, 4.0, None), record(2, 3.0, None)]).unwrap();
    assert!(svg.contains(">\nTraining loss\n<"), "{svg}");
    assert!(!svg.contains("validation") && !svg.contains("best"));
}

#[test]
fn nothing_finite_says_so() {
    for records in [&[][..], &[record(1, f64::NAN, Some(f64::INFINITY))]] {
        let svg = loss_svg(records).unwrap();
        assert!(svg.contains("no finite loss recorded"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}

#[test]
fn a_long_run_draws_few_points() {
    let (short, long) = (loss_svg(&run(2_000)).unwrap(), loss_svg(&run(60_000)).unwrap());
    assert!(long.len() < 60_000, "{} bytes", long.len());
    assert!(long.len() < 2 * short.len());
}

#[test]
fn smoothing_keeps_the_ends_and_the_level() {
    assert_eq!(smooth(&[(1.0, 3.0), (2.0, 5.0)]), [(1.0, 3.0), (2.0, 5.0)]);
    // half-width 2: 0; (0+1+2)/3; then five wide; at the end (117+118+119)/3
    let line: Vec<Point> = (0..120).map(|i| (f64::from(i), f64::from(i))).collect();
    let smoothed = smooth(&line);
    assert_eq!(smoothed[..3], line[..3]);
    assert_eq!(smoothed[60], line[60]);
    assert_eq!(smoothed[119], (119.0, 118.0));
}

#[test]
fn thinning_keeps_both_ends_and_the_extremes() {
    let line: Vec<Point> = (0..1001).map(|i| (f64::from(i), f64::from(i % 7))).collect();
    let thinned = thin(&line, 100);
    assert_eq!((thinned.len(), thinned[0], thinned[100]), (101, line[0], line[1000]));
    assert_eq!(thin(&line[..3], 100), line[..3]);
    assert_eq!(thin(&line[..1], 100), line[..1]);
    let mut spiked = line.clone();
    spiked[500].1 = 99.0;
    let kept = extremes(&spiked, 100);
    assert!(kept.len() <= 100 && kept.contains(&(500.0, 99.0)));
    assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn a_spike_does_not_flatten_the_curve() {
    let mut line: Vec<Point> = (0..100).map(|i| (f64::from(i), 2.0 + f64::from(i % 2))).collect();
    line[50].1 = 1e6;
    // the usual range is 2 to 3: at most 3 + 3 · 1, and 6 % more
    assert!((loss_range(&line, &[]).end - 6.24).abs() < 1e-9);
}

fn any_record() -> impl Strategy<Value = LossPoint> {
    (any::<usize>(), any::<f64>(), prop::option::of(any::<f64>()))
        .prop_map(|(step, loss, valid)| record(step, loss, valid))
}

proptest! {
    #[test]
    fn no_records_make_it_panic(records in prop::collection::vec(any_record(), 0..20)) {
        let svg = loss_svg(&records).unwrap();
        prop_assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }

    #[test]
    fn neither_do_losses_of_any_size(
        scale in -12i32..12,
        losses in prop::collection::vec(-1.0f64..1.0, 0..8),
        step in 0usize..4,
    ) {
        let losses = losses.iter().enumerate();
        let scaled = losses.map(|(i, loss)| record(i * step, loss * 10f64.powi(scale), Some(*loss)));
        prop_assert!(loss_svg(&scaled.collect::<Vec<_>>()).is_ok());
    }
}
