//! Files that PyTorch wrote, and what PyTorch reads in them.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::files::weights;

use super::bytes::{archive, dict, floats, storage, tensor, text, tuple};
use super::{File, assert_same, fixture};

/// All expected tensors of a case.
fn expected(case: &str) -> HashMap<String, Tensor> {
    let all = candle_core::safetensors::load(fixture("expected.safetensors"), &Device::Cpu);
    let all = all.expect("the fixture").into_iter();
    let prefix = format!("{case}/");
    let own =
        all.filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_string(), tensor)));
    let own: HashMap<_, _> = own.collect();
    assert!(!own.is_empty(), "{case}");
    own
}

fn agrees(case: &str, file: &str) {
    let read = weights::read(fixture(file)).unwrap_or_else(|error| panic!("{error}"));
    let expected = expected(case);
    for (name, tensor) in &expected {
        let found = read.tensors.get(name).unwrap_or_else(|| panic!("{case}: no {name}"));
        assert_same(&format!("{case}: {name}"), found, tensor);
    }
    assert_eq!(read.tensors.len(), expected.len(), "{case}");
}

#[test]
fn files_agree_with_pytorch() {
    let cases = [
        "kinds_2.pt",
        "kinds_3.pt",
        "kinds_4.pt",
        "kinds_5.pt",
        "older_kinds_2.pt",
        "older_kinds_4.pt",
        "zip64.pt",
        "views.bin",
        "older_views.bin",
        "typed.pt",
        "bare.pth",
        "under_state_dict.pt",
        "under_model.pt",
        "under_model_state_dict.pt",
        "older_checkpoint.pt",
        "int8.pt",
    ];
    cases.iter().for_each(|case| agrees(case, case));
    agrees("sharded", "sharded/model.safetensors.index.json");
    agrees("sharded_bin", "sharded_bin/pytorch_model.bin.index.json");
}

#[test]
fn what_is_known_before_reading_is_what_is_read() -> Result<()> {
    for name in ["kinds_2.pt", "older_views.bin", "int8.pt", "expected.safetensors"] {
        let file = weights::open(fixture(name))?;
        let listed = file.tensors().to_vec();
        let read = file.read()?;
        assert_eq!(listed.len(), read.tensors.len());
        for info in listed {
            let tensor = &read.tensors[&info.name];
            assert_eq!((tensor.dims(), tensor.dtype()), (&info.shape[..], info.dtype), "{name}");
        }
    }
    Ok(())
}

#[test]
fn a_published_model_is_the_same_in_both_formats() -> Result<()> {
    let [bin, safetensors] = ["pytorch_model.bin", "model.safetensors"]
        .map(|name| weights::read(fixture("../gpn-tiny").join(name)));
    let (bin, safetensors) = (bin?.tensors, safetensors?.tensors);
    assert_eq!(bin.len(), safetensors.len());
    assert!(bin.len() > 20);
    for (name, tensor) in &bin {
        assert_same(name, tensor, &safetensors[name]);
    }
    Ok(())
}

#[test]
fn tensors_that_share_all_their_numbers_share_them_here_too() -> Result<()> {
    let names = ["a", "b"].map(|name| (name, tensor(2, 0, &[2], &[1])));
    let file = File::new("tied.pt", &archive(&dict(&names), &floats(&[1., 2.])));
    let read = file.read()?.tensors;
    let address = |name: &str| {
        let (storage, _) = read[name].storage_and_layout();
        let candle_core::Storage::Cpu(cpu) = &*storage else { panic!("not on the CPU") };
        cpu.as_slice::<f32>().expect("floats").as_ptr()
    };
    assert_eq!(address("a"), address("b"));
    Ok(())
}

#[test]
fn the_one_dict_of_tensors_is_found_and_several_are_named() -> Result<()> {
    let one = |offset| tensor(3, offset, &[1], &[1]);
    let inner = |offset| {
        let entries = [b"}".to_vec(), text("x"), one(offset), b"s".to_vec()];
        entries.concat()
    };
    let number = |entries: &[(&str, Vec<u8>)]| -> Result<f32> {
        let file = File::new("a.pt", &archive(&dict(entries), &floats(&[0., 1., 2.])));
        let tensors = file.read()?.tensors;
        Ok(tensors["x"].to_vec1::<f32>()?[0])
    };
    let all = [("x", one(0)), ("model", inner(1)), ("state_dict", inner(2))];
    let several = number(&all).unwrap_err().to_string();
    assert!(several.contains("model (1 tensors), state_dict (1 tensors)"), "{several}");
    assert_eq!(number(&all[..2])?, 1.);
    assert_eq!(number(&all[..1])?, 0.);
    // at any depth, but not what an optimizer keeps
    let deep = ("outer", [b"}".to_vec(), text("net"), inner(1), b"s".to_vec()].concat());
    assert_eq!(number(std::slice::from_ref(&deep))?, 1.);
    assert_eq!(number(&[deep.clone(), ("optimizer", inner(2))])?, 1.);
    let several = number(&[deep, ("ema", inner(2))]).unwrap_err().to_string();
    assert!(several.contains("outer.net (1 tensors), ema (1 tensors)"), "{several}");
    let file = File::new("b.pt", &archive(&dict(&all), &floats(&[0., 1., 2.])));
    let chosen = weights::open_key(&file.path, "state_dict")?;
    assert_eq!(chosen.read()?.tensors["x"].to_vec1::<f32>()?, [2.]);
    // a setting of that name is no state dict
    assert_eq!(number(&[("x", one(0)), ("model", text("tcn"))])?, 0.);
    Ok(())
}

#[test]
fn what_only_pytorch_can_read_is_refused_with_advice() {
    let refused = |name: &str| {
        let error = weights::read(fixture(name)).expect_err(name).to_string();
        assert!(error.contains(&format!("{name}: ")), "{error}");
        error
    };
    let module = refused("refused_module.pt");
    assert!(module.contains("would run `torch.nn.modules.linear.Linear`"), "{module}");
    assert!(module.contains("torch.save(model.state_dict(), ...)"), "{module}");
    let module = refused("refused_older_module.pt");
    assert!(module.contains("torch.save(model.state_dict(), ...)"), "{module}");
    let complex = refused("refused_complex.pt");
    assert!(complex.contains("tensor x: complex"), "{complex}");
    assert!(refused("refused_list.pt").contains("expected a dict of tensors"));
    assert!(refused("refused_compressed.pt").contains("compressed"));
}

#[test]
fn files_of_machines_with_the_highest_byte_first_are_refused() {
    let zip = std::fs::read(fixture("kinds_2.pt")).expect("the fixture");
    let at = zip.windows(6).position(|bytes| bytes == b"little").expect("its byte order");
    let mut big = zip.clone();
    big[at..at + 6].copy_from_slice(b"big   ");
    File::new("big.pt", &big).refused("highest byte first");

    let older = std::fs::read(fixture("older_kinds_2.pt")).expect("the fixture");
    let at = older.windows(13).position(|bytes| bytes == b"little_endian").expect("its byte order");
    let mut big = older.clone();
    let flag = big[at..].iter().position(|&byte| byte == 0x88).expect("true");
    big[at + flag] = 0x89;
    File::new("big.pt", &big).refused("highest byte first");
}

#[test]
fn bytes_become_floats_by_the_scale_of_their_channel() -> Result<()> {
    let header = r#"{"w": {"dtype": "I8", "shape": [2, 1, 2], "data_offsets": [0, 4]},
        "w_scale": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}"#;
    let data = [&[1, 0xfe, 127, 0x80][..], &floats(&[0.5, 2.])].concat();
    let file = File::new("int8.safetensors", &super::bytes::safetensors(header, &data));
    let listed = weights::open(&file.path)?;
    assert!(listed.is_int8());
    assert_eq!(listed.tensors().len(), 1);
    let read = file.read()?;
    assert!(read.int8);
    assert_eq!(read.tensors.len(), 1);
    assert_eq!(read.tensors["w"].dtype(), DType::F32);
    assert_eq!(read.tensors["w"].to_vec3::<f32>()?, [[[0.5, -1.]], [[254., -256.]]]);
    Ok(())
}

#[test]
fn the_older_format_names_a_storage_that_is_part_of_another() {
    let mut id = storage("FloatStorage", "0", 1);
    id.truncate(id.len() - 2);
    id.extend([tuple(&[text("1")]), b"tQ".to_vec()].concat());
    let file = File::new("view.pt", &archive(&dict(&[("x", id)]), &floats(&[1.])));
    file.refused("part of another one");
}
