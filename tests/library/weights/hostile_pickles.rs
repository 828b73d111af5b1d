//! Pickles made to do harm: each is an error that says why, in little memory.

use super::bytes::*;
use super::{File, fixture};

fn pickled(pickle: &[u8]) -> File {
    File::new("evil.pt", &archive(pickle, &floats(&[1., 2., 3., 4.])))
}

#[test]
fn code_is_named_and_never_run() {
    let witness = tempfile::tempdir().expect("a temporary folder").path().join("ran");
    let command = text(&format!("touch {}", witness.display()));
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
    ] {
        let full = format!("would run `{module}.{name}`");
        let run = [tuple(std::slice::from_ref(&command)), b"R".to_vec()].concat();
        pickled(&pickle(&[&global(module, name), &run])).refused(&full);
        // among tensors, and in the words of protocol 4
        let named = [
            b"\x8c".to_vec(),
            vec![module.len() as u8],
            module.into(),
            b"\x8c".to_vec(),
            vec![name.len() as u8],
            name.into(),
            b"\x93".to_vec(),
        ]
        .concat();
        let entries = [("x", tensor(4, 0, &[4], &[1])), ("y", [named, run].concat())];
        pickled(&dict(&entries)).refused(&full);
    }
    assert!(!witness.exists());
    // the names of instructions that make objects by their class
    for instructions in [&b"(i__main__\nNet\n"[..], b"\x82\x01"] {
        pickled(&pickle(&[instructions])).refused("instructions that torch.save writes");
    }
}

#[test]
fn a_pickle_without_an_archive_is_read_as_data_too() {
    let evil = pickle(&[&global("os", "system"), &tuple(&[text("true")]), b"R"]);
    File::new("evil.pt", &evil).refused("would run `os.system`");
    File::new("evil.bin", &pickle(&[b"}"])).refused("not one that torch.save writes");
}

#[test]
fn a_hostile_name_is_shown_in_one_short_line() {
    let name = "\u{1b}[2J".repeat(1000);
    let message = pickled(&pickle(&[&global("os", &name)])).refused("would run `os.");
    assert!(!message.contains('\u{1b}'), "{message}");
}

#[test]
fn deep_nesting_and_shared_values_take_no_more_than_they_are() {
    // ((((...)))): half a million tuples in one another
    pickled(&pickle(&[b")", &b"\x85".repeat(500_000)])).refused("expected a dict of tensors");
    pickled(&pickle(&[&b"]".repeat(300_000), &b"a".repeat(299_999)]))
        .refused("expected a dict of tensors");
    // each list twice in the next one: 2^100000 if written out
    let twice = b"]q\x00(h\x01h\x01eq\x01".repeat(100_000);
    pickled(&pickle(&[b"]q\x01", &twice])).refused("expected a dict of tensors");
    // a list in itself
    pickled(&pickle(&[b"]q\x00h\x00a"])).refused("expected a dict of tensors");
    // a dict copied again and again
    let list = [b"(".to_vec(), b"N)\x86".repeat(100_000), b"l\x85q\x00".to_vec()].concat();
    let copies =
        [&b"0"[..], &global("collections", "OrderedDict"), b"h\x00R"].concat().repeat(1000);
    pickled(&pickle(&[&list, &copies])).refused("more values than");
    // the most values
    for one in [&b"N"[..], b")", b"]", b"}", b"(", b"]Na", b"}NNs", b")\x85", b"2"] {
        let many = one.repeat(1_500_000);
        pickled(&pickle(&[b"N", &many])).refused("more values than");
    }
}

#[test]
fn damaged_pickles_are_errors() {
    let remembered = |op: &[u8]| pickle(&[b"}", op]);
    for (instructions, fault) in [
        (pickle(&[]), "a value is missing"),
        (pickle(&[b"0"]), "a value is missing"),
        (pickle(&[b"\x87"]), "a value is missing"),
        (pickle(&[b"N(\x85"]), "a value is missing"),
        (pickle(&[b"t"]), "a mark is missing"),
        (pickle(&[b"Na"]), "a value is missing"),
        (pickle(&[b"NNa"]), "a list is missing"),
        (pickle(&[b")NNs"]), "a dict is missing"),
        (pickle(&[b"}(Nu"]), "a dict is missing"),
        (pickle(&[b"NR"]), "a value is missing"),
        (pickle(&[b"N)R"]), "cannot be called"),
        (pickle(&[&global("torch", "Size"), b"NR"]), "without arguments"),
        (pickle(&[&global("torch", "Size"), b")R"]), "other arguments"),
        (pickle(&[&global("torch._utils", "_rebuild_tensor_v2"), b")R"]), "other arguments"),
        (pickle(&[&global("torch._utils", "_rebuild_parameter"), b"N\x85R"]), "no tensor"),
        (pickle(&[&global("collections", "OrderedDict"), b"N\x85R"]), "pairs"),
        (pickle(&[b"NQ"]), "something else than a storage"),
        (pickle(&[&storage("Tensor", "0", 1)]), "no known type"),
        (pickle(&[&storage("FloatStorage", "0", -1)]), "-1 numbers"),
        (pickle(&[&storage("FloatStorage", &"9".repeat(100), 1)]), "too long"),
        (remembered(b"h\x07"), "has not made"),
        (remembered(b"j\xff\xff\xff\xff"), "has not made"),
        (remembered(b"r\xff\xff\xff\xff"), "number 4294967295"),
        (pickle(&[b"X\xff\xff\xff\xff"]), "ends too early"),
        (pickle(&[b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"]), "ends too early"),
        (pickle(&[b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"]), "ends too early"),
        (pickle(&[b"cos"]), "ends too early"),
        (pickle(&[b"NN\x93"]), "expected text"),
        (b"\x80\x09N.".to_vec(), "protocol 2 to 5, found 9"),
        (Vec::new(), "ends too early"),
    ] {
        pickled(&instructions).refused(fault);
    }
}

#[test]
fn tensors_stay_inside_of_their_storage() {
    let huge = i64::MAX;
    for (tensor, fault) in [
        (tensor(4, 0, &[5], &[1]), "inside of its 4"),
        (tensor(4, 1, &[4], &[1]), "inside of its 4"),
        (tensor(4, 0, &[2, 2], &[3, 1]), "inside of its 4"),
        (tensor(4, 0, &[2, 2], &[huge, 1]), "inside of its 4"),
        (tensor(4, 0, &[huge, huge], &[1, 1]), "inside of its 4"),
        (tensor(4, huge, &[2], &[huge]), "inside of its 4"),
        (tensor(4, 4, &[], &[]), "inside of its 4"),
        (tensor(4, 0, &[-1], &[1]), "at least 0, found -1"),
        (tensor(4, 0, &[2], &[-1]), "at least 0, found -1"),
        (tensor(4, -1, &[2], &[1]), "at least 0, found -1"),
        (tensor(4, 0, &[2], &[1, 1]), "1 axes and 2 strides"),
        (tensor(4, 0, &[1; 70], &[1; 70]), "70 axes"),
        // a terabyte of one number
        (tensor(4, 0, &[1 << 38], &[0]), "its tensors overlap"),
        (tensor(4, 0, &[1 << 31, 1 << 31], &[0, 0]), "its tensors overlap"),
        (tensor(5, 0, &[4], &[1]), "storage 0: expected 20 bytes for 5 numbers, found 16"),
        (tensor(huge, 0, &[4], &[1]), "numbers, found 16"),
    ] {
        pickled(&dict(&[("x", tensor)])).refused(fault);
    }
}

#[test]
fn many_views_of_few_numbers_are_refused() {
    let names: Vec<String> = (0..2000).map(|i| format!("x{i}")).collect();
    let all: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (name.as_str(), tensor(4, 0, &[2], &[1]))).collect();
    // one view under many names is one tensor
    assert_eq!(pickled(&dict(&all)).read().expect("shared").tensors.len(), 2000);
    let all: Vec<(&str, Vec<u8>)> =
        names.iter().zip(1..).map(|(name, i)| (name.as_str(), tensor(4, 0, &[i], &[0]))).collect();
    pickled(&dict(&all)).refused("its tensors overlap");
}

#[test]
fn names_and_storages_are_what_they_should_be() {
    let x = || tensor(4, 0, &[4], &[1]);
    pickled(&dict(&[("x", x()), ("x", x())])).refused("tensor x: it stands there twice");
    pickled(&pickle(&[b"}N", &x(), b"s"])).refused("named by text");
    pickled(&pickle(&[b"}U\x01\xff", &x(), b"s"])).refused("named by text");
    pickled(&dict(&[])).refused("expected a dict of tensors");
    let other = [("x", x()), ("y", storage("DoubleStorage", "0", 4))];
    pickled(&dict(&other)).refused("storage 0: expected 4 numbers F32 as before, found 4 F64");
    let elsewhere = storage("FloatStorage", "../../etc/passwd", 4);
    let function = global("torch._utils", "_rebuild_tensor_v2");
    let args = tuple(&[elsewhere, int(0), ints(&[4]), ints(&[1])]);
    pickled(&dict(&[("x", [function, args, b"R".to_vec()].concat())]))
        .refused("storage ../../etc/passwd: expected it in the archive");
}

#[test]
fn every_cut_of_a_file_is_an_error_and_no_damage_a_panic() {
    for name in [
        "views.bin",
        "older_views.bin",
        "int8.pt",
        "older_checkpoint.pt",
        "sharded/model-00001-of-00002.safetensors",
    ] {
        let whole = std::fs::read(fixture(name)).expect("the fixture");
        let name = name.replace('/', "-");
        let file = File::new(&name, &whole);
        let write = |content: &[u8]| std::fs::write(&file.path, content).expect("writable");
        // every one would take minutes
        for length in (0..whole.len()).step_by(3) {
            write(&whole[..length]);
            file.refused("");
        }
        for at in (0..whole.len()).step_by(5) {
            for bits in [0x01, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= bits;
                write(&damaged);
                // some damage is to the numbers of a file without checksums
                if let Err(error) = file.read() {
                    assert!(error.to_string().contains(&name), "{error}");
                }
            }
        }
    }
}
