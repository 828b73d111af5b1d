//! The layer and the blocks over images: torchvision's numbers, causality, what they see.

use crate::common;
use crate::common::{UnderTest, assert_close, assert_gradients, bits, random, rng, scatter, under};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_tcn::Result;
use candle_tcn::geometry::Padding;
use candle_tcn::graph::Run;
use candle_tcn::nn::{
    AsppConfig, ContextConfig, ContextForm, Conv1dConfig, Conv2dConfig, PaddingMode, Params,
    SpatioTemporalConfig, SpatioTemporalConv, aspp, context_module, dilated_conv1d, dilated_conv2d,
    to_channels_last,
};

const ASPP: &str = "aspp/aspp_rates_12_24_36";

/// `torchvision.models.segmentation.deeplabv3.ASPP(4, [12, 24, 36], 5)` in eval mode, from its state dict.
#[test]
fn aspp_equals_torchvision() -> Result<()> {
    for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-5)] {
        let weights = common::tensors(&format!("{ASPP}/state_dict"));
        let io = common::tensors(&format!("{ASPP}/io"));
        let params = Params::new(1, dtype, &Device::Cpu);
        let config = AsppConfig { out_channels: 5, ..AsppConfig::new(4) };
        let net = aspp(&config, params.builder())?.under_test();
        params.load(&weights)?;

        let xs = Var::from_tensor(&to_channels_last(&io["input"].to_dtype(dtype)?)?)?;
        let ys = net.forward_with(&xs, Run::eval())?;
        assert_close("output", &ys, &to_channels_last(&io["output"])?, tolerance)?;
        let coefficients = to_channels_last(&io["loss_coef"].to_dtype(dtype)?)?;
        let grads = (ys * coefficients)?.sum_all()?.backward()?;
        let dx = grads.get(&xs).expect("a gradient of the input");
        assert_close("input", dx, &to_channels_last(&io["grad.input"])?, tolerance)?;
        let mut expected = under("grad.", &io);
        expected.remove("input");
        assert_gradients("aspp", &grads, &params, &expected, tolerance)?;
    }
    Ok(())
}

/// Every tensor of the state dict but the counters has its place.
#[test]
fn aspp_takes_every_tensor_of_torchvision() -> Result<()> {
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let config = AsppConfig { out_channels: 5, ..AsppConfig::new(4) };
    aspp(&config, params.builder())?.under_test();
    let weights = common::tensors(&format!("{ASPP}/state_dict"));
    let mut names: Vec<_> = weights.into_keys().collect();
    names.retain(|name| !name.ends_with("num_batches_tracked"));
    names.sort();
    let ours: Vec<_> = params.all().into_iter().map(|(name, _)| name).collect();
    assert_eq!(ours, names);
    Ok(())
}

#[test]
fn aspp_trains_and_drops() -> Result<()> {
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let config = AsppConfig { out_channels: 8, rates: vec![2, 5], ..AsppConfig::new(3) };
    let net = aspp(&config, params.builder())?.under_test();
    let xs = random(&mut rng(2), &[3, 6, 7, 3], DType::F32)?;
    let ys = net.forward_with(&xs, Run::train(1, 1))?;
    let values: Vec<f32> = ys.flatten_all()?.to_vec1()?;
    let zeros = values.iter().filter(|&&y| y == 0.0).count() as f64 / values.len() as f64;
    // half of a ReLU's outputs, and half of the rest
    assert!((0.6..0.9).contains(&zeros), "{zeros}");
    let grads = ys.sum_all()?.backward()?;
    for (name, var) in params.trainable() {
        assert!(grads.get(&var).is_some(), "{name}");
    }
    Ok(())
}

/// The gradient of one output pixel is not zero exactly where the geometry says that it reads.
#[test]
fn the_context_module_sees_what_its_geometry_says() -> Result<()> {
    let config = ContextConfig::new(1, ContextForm::Basic);
    let params = Params::new(1, DType::F64, &Device::Cpu);
    let context = context_module(&config, params.builder())?.under_test();
    for (name, var) in params.all() {
        // positive throughout, so that no ReLU hides a path
        let value = if name.ends_with("bias") { 0.0 } else { 0.1 };
        var.set(&(var.ones_like()? * value)?)?;
    }
    let side = 81;
    let xs = Var::ones((1, side, side, 1), DType::F64, &Device::Cpu)?;
    let ys = context.forward(&xs)?;
    let middle = ys.narrow(1, side / 2, 1)?.narrow(2, side / 2, 1)?;
    let grads = middle.sum_all()?.backward()?;
    let map: Vec<f64> = grads.get(&xs).expect("a gradient").flatten_all()?.to_vec1()?;
    let (height, _) = config.geometry()?.receptive_field()?;
    assert_eq!(height.total, 67);
    for i in 0..side {
        for j in 0..side {
            let inside = i.abs_diff(side / 2).max(j.abs_diff(side / 2)) <= 33;
            assert_eq!(map[i * side + j] != 0.0, inside, "({i}, {j})");
        }
    }
    Ok(())
}

/// Both forms pass on what is not negative right after their initialisation; the large one up to its noise.
#[test]
fn context_modules_begin_as_the_identity() -> Result<()> {
    for (form, tolerance) in [(ContextForm::Basic, 0.0), (ContextForm::Large, 0.5)] {
        let params = Params::new(1, DType::F64, &Device::Cpu);
        let config = ContextConfig::new(3, form);
        let context = context_module(&config, params.builder())?.under_test();
        config.init_identity(&context, 7)?;
        let xs = random(&mut rng(4), &[1, 9, 8, 3], DType::F64)?.abs()?;
        assert_close("identity", &context.forward(&xs)?, &xs, tolerance)?;
    }
    let config =
        ContextConfig { dilations: vec![1, 2], ..ContextConfig::new(3, ContextForm::Large) };
    let params = Params::new(1, DType::F64, &Device::Cpu);
    let error = context_module(&config, params.builder()).unwrap_err();
    assert!(error.to_string().starts_with("dilations: expected 7"), "{error}");
    Ok(())
}

/// What is causal along an axis reads no later line (or column): its outputs do not change with them.
#[test]
fn a_causal_axis_sees_nothing_later() -> Result<()> {
    let rng = &mut rng(5);
    for (causal_height, causal_width) in [(true, false), (false, true), (true, true)] {
        let padding = |causal| {
            if causal { Padding::Causal } else { Padding::Same }
        };
        let cfg = Conv2dConfig {
            padding: (padding(causal_height), padding(causal_width)),
            dilation: (2, 1),
            ..Conv2dConfig::same()
        };
        let params = Params::new(1, DType::F64, &Device::Cpu);
        let conv = dilated_conv2d(2, 3, (3, 3), cfg, params.builder())?.under_test();
        scatter(&params, rng)?;
        let xs = random(rng, &[2, 7, 8, 2], DType::F64)?;
        let ys = conv.forward(&xs)?;
        for (axis, causal) in [(1, causal_height), (2, causal_width)] {
            let past = conv.forward(&xs.narrow(axis, 0, 4)?)?;
            let same = bits(&ys.narrow(axis, 0, 4)?)? == bits(&past)?;
            assert_eq!(same, causal, "axis {axis}");
        }
    }
    Ok(())
}

/// An image of one line is a sequence, for every option both layers have.
#[test]
fn a_layer_over_one_line_is_the_layer_over_time() -> Result<()> {
    let rng = &mut rng(6);
    for (groups, padding, padding_mode, stride) in [
        (1, Padding::Causal, PaddingMode::Zeros, 1),
        (2, Padding::Same, PaddingMode::Reflect, 1),
        (4, Padding::Valid, PaddingMode::Zeros, 3),
        (1, Padding::Explicit { left: 2, right: 5 }, PaddingMode::Circular, 2),
    ] {
        let params = Params::new(1, DType::F32, &Device::Cpu);
        let over_time = Conv1dConfig {
            padding,
            padding_mode,
            dilation: 2,
            stride,
            groups,
            ..Conv1dConfig::causal()
        };
        let over_width = Conv2dConfig {
            padding: (Padding::Valid, padding),
            padding_mode,
            dilation: (1, 2),
            stride: (1, stride),
            groups,
            ..Conv2dConfig::same()
        };
        let line = dilated_conv1d(4, 8, 3, over_time, params.builder().pp("a"))?.under_test();
        let image =
            dilated_conv2d(4, 8, (1, 3), over_width, params.builder().pp("b"))?.under_test();
        let all = params.all();
        let of =
            |name: &str| all.iter().find(|(n, _)| n == name).map(|(_, v)| v).expect("a tensor");
        of("b.weight").set(&of("a.weight").unsqueeze(2)?)?;
        of("b.bias").set(of("a.bias"))?;
        let xs = random(rng, &[3, 30, 4], DType::F32)?;
        let expected = line.forward_with(&xs, Run::eval())?;
        let found = image.forward(&xs.unsqueeze(1)?)?.squeeze(1)?;
        assert_eq!(bits(&found)?, bits(&expected)?);
        assert_eq!(image.graph().output_size((1, 30))?, (1, expected.dim(1)?));
    }
    Ok(())
}

/// A convolution over space, then over time, is what the loops over frames and pixels say.
#[test]
fn frames_are_convolved_over_space_and_then_over_time() -> Result<()> {
    let config = SpatioTemporalConfig {
        mid_channels: 3,
        time_dilation: 2,
        space_dilation: (1, 2),
        ..SpatioTemporalConfig::new(2, 4)
    };
    let fields = config.geometry()?.map(|stack| stack.receptive_field().map(|f| f.total));
    assert_eq!(fields.into_iter().collect::<Result<Vec<_>>>()?, [5, 3, 5]);
    let params = Params::new(1, DType::F64, &Device::Cpu);
    let conv = SpatioTemporalConv::new(&config, params.builder())?;
    let rng = &mut rng(8);
    let xs = random(rng, &[2, 6, 4, 5, 2], DType::F64)?;
    let ys = conv.forward(&xs)?;

    let space = Conv2dConfig { dilation: (1, 2), ..Conv2dConfig::same() };
    let space = dilated_conv2d(2, 3, (3, 3), space, params.builder().pp("space"))?.under_test();
    let time = params.builder().pp("time").get((4, 3, 3, 1), "weight")?;
    let bias = params.builder().pp("time").get(4, "bias")?;
    for t in 0..6usize {
        let mut expected =
            Tensor::zeros((2, 4, 5, 4), DType::F64, &Device::Cpu)?.broadcast_add(&bias)?;
        for tap in 0..3usize {
            let Some(from) = t.checked_sub((2 - tap) * 2) else {
                continue;
            };
            let frame = space.forward(&xs.narrow(1, from, 1)?.squeeze(1)?)?.relu()?;
            let matrix = time.narrow(2, tap, 1)?.reshape((4, 3))?.t()?;
            expected = (expected + frame.broadcast_matmul(&matrix)?)?;
        }
        assert_close("frame", &ys.narrow(1, t, 1)?.squeeze(1)?, &expected, 1e-12)?;
    }
    Ok(())
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let layer = |channels: (usize, usize), kernel, cfg| {
        let params = Params::new(1, DType::F32, &Device::Cpu);
        let layer = dilated_conv2d(channels.0, channels.1, kernel, cfg, params.builder());
        layer.unwrap_err().to_string()
    };
    let same = Conv2dConfig::same();
    for (channels, kernel, cfg, start) in [
        ((0, 1), (1, 1), same, "in_channels"),
        ((2, 3), (1, 1), Conv2dConfig { groups: 2, ..same }, "groups"),
        ((1, 1), (0, 1), same, "height: kernel_size"),
        ((1, 1), (1, 1 << 20), same, "width: kernel_size"),
        ((1, 1), (3, 3), Conv2dConfig { dilation: (1, 0), ..same }, "width: dilation"),
        ((1, 1), (3, 3), Conv2dConfig { stride: (0, 1), ..same }, "height: stride"),
        (
            (1, 1),
            (3, 3),
            Conv2dConfig {
                padding: (Padding::Explicit { left: usize::MAX, right: 0 }, Padding::Same),
                ..same
            },
            "height: padding",
        ),
        (
            (1, 1),
            (3, 3),
            Conv2dConfig { dilation: (1, 2), input_size: Some((3, 3)), ..Conv2dConfig::valid() },
            "width: input length with padding: expected at least 5 steps",
        ),
    ] {
        let error = layer(channels, kernel, cfg);
        assert!(error.starts_with(start), "{error}");
    }
}
