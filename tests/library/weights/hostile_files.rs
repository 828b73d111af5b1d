//! Archives, safetensors and indices made to do harm.

use std::fmt::Write;

use candle_tcn::files::weights;

use super::bytes::*;
use super::{File, MAX_BYTES, fixture};

fn one(shape: &str, dtype: &str, from: u64, to: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
}

#[test]
fn headers_of_safetensors() {
    let header = |header: &str, data: usize| {
        File::new("evil.safetensors", &safetensors(header, &vec![0; data]))
    };
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let a = |tensor: String| format!(r#"{{"a":{tensor}}}"#);
    for (text, data, fault) in [
        (a(one("[2]", "F32", 0, 8)), 7, " + 8 bytes, found"),
        (a(one("[2]", "F32", 0, 8)), 9, " + 8 bytes, found"),
        (a(one("[3]", "F32", 0, 8)), 8, "not a whole safetensors file"),
        (a(one("[1]", "F32", 8, 4)), 8, "not a whole safetensors file"),
        (a(one("[1]", "F32", 4, 8)), 8, "not a whole safetensors file"),
        (
            two(one("[2]", "F32", 0, 8), one("[2]", "F32", 4, 12)),
            12,
            "not a whole safetensors file",
        ),
        (
            two(one("[1]", "F32", 0, 4), one("[1]", "F32", 8, 12)),
            12,
            "not a whole safetensors file",
        ),
        (
            a(one("[18446744073709551615,18446744073709551615]", "F32", 0, 8)),
            8,
            "not a whole safetensors file",
        ),
        (a(one("[1099511627776]", "F32", 0, 4398046511104)), 8, "expected 8 + "),
        (a(one("[2]", "F32", 0, u64::MAX)), 8, "not a whole safetensors file"),
        (a(one("[-1]", "F32", 0, 8)), 8, "header: invalid value"),
        (a(one("[NaN]", "F32", 0, 8)), 8, "header: "),
        (a(one("[1.5]", "F32", 0, 8)), 8, "header: "),
        (a(one("[8]", "F8_E4M3", 0, 8)), 8, "floats or whole numbers, found F8_E4M3"),
        (a(one("[1]", "C64", 0, 8)), 8, "floats or whole numbers, found C64"),
        (a(one("[1]", "PY", 0, 8)), 8, "header: unknown variant"),
        (
            a(one(&format!("[2{}]", ",1".repeat(99)), "F32", 0, 8)),
            8,
            "tensor a: expected at most 16 axes, found 100",
        ),
        (
            two(one("[1]", "F32", 0, 4), one("[1]", "F32", 4, 8)).replace("\"b\"", "\"a\""),
            8,
            "tensor a stands there twice",
        ),
        (a(one("[8]", "I8", 0, 8)), 8, "in a_scale"),
        (r#"{"a":"#.repeat(200_000), 0, "header: EOF"),
        (format!("{{{}", " ".repeat(1 << 22)), 0, "expected a header of 2 to 4194304 bytes"),
        ("{".into(), 0, "expected a header of 2 to"),
        (r#"{"a""#.into(), 0, "header: EOF"),
    ] {
        header(&text, data).refused(fault);
    }
    let long = format!(r#"{{"{}":{}}}"#, "\\u001b".repeat(100_000), one("[1]", "C64", 0, 8));
    let message = header(&long, 8).refused("found C64");
    assert!(!message.contains('\u{1b}'));
    let read = header(&a(one("[2]", "BOOL", 0, 2)), 2).read().expect("whole");
    assert_eq!(read.tensors["a"].to_vec1::<u8>().expect("bytes"), [0, 0]);
    // empty files are whole
    assert!(header("{}", 0).read().expect("whole").tensors.is_empty());
    assert!(
        header(r#"{"__metadata__":{"format":"pt"}}"#, 0).read().expect("whole").tensors.is_empty()
    );
}

#[test]
fn lengths_of_headers() {
    for length in [0, 1, 3, 1 << 22, (1 << 22) + 1, 1 << 40, u64::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        File::new("evil.safetensors", &bytes).refused("not a whole safetensors file");
    }
}

#[test]
fn scales_of_bytes() {
    let file = |scale: String, number: f32| {
        let header = format!(r#"{{"w":{},"w_scale":{scale}}}"#, one("[2,2]", "I8", 0, 4));
        File::new(
            "evil.safetensors",
            &safetensors(&header, &[vec![1; 4], floats(&[number, 1.])].concat()),
        )
    };
    file(one("[2]", "F32", 4, 12), f32::NAN).refused("tensor w: expected finite scales, found NaN");
    file(one("[2,1]", "F32", 4, 12), 1.)
        .refused("expected their scales, F32 and one for each output channel, in w_scale");
    file(one("[4]", "BF16", 4, 12), 1.).refused("expected their scales");
    file(one("[8]", "I8", 4, 12), 1.).refused("expected their scales");
}

#[test]
fn other_files_are_named_as_what_they_are() {
    let refused = |content: &[u8], fault: &str| drop(File::new("a.bin", content).refused(fault));
    refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull");
    refused(b"<!DOCTYPE html><html>not found</html>", "an HTML page");
    refused(b"", "an empty file");
    refused(b"\x93NUMPY\x01\x00", "a NumPy array");
    refused(b"\x00\x01\x02\x03", "found neither");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = weights::read(folder.path()).expect_err("a folder").to_string();
    assert!(error.contains("found a folder"), "{error}");
    let error = weights::read(folder.path().join("none.bin")).expect_err("nothing").to_string();
    assert!(error.contains("none.bin: "), "{error}");
    let error = weights::find(folder.path()).expect_err("nothing").to_string();
    assert!(error.contains("expected weights in it (model.safetensors, "), "{error}");
}

#[test]
fn archives() {
    let good = dict(&[("x", tensor(1, 0, &[1], &[1]))]);
    let number = floats(&[1.]);
    let file = |bytes: &[u8]| File::new("evil.pt", bytes);
    let whole = archive(&good, &number);
    assert_eq!(file(&whole).read().expect("whole").tensors.len(), 1);
    let at =
        |pattern: &[u8]| whole.windows(pattern.len()).position(|w| w == pattern).expect("there");
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        file(&changed)
    };
    let directory = at(b"PK\x01\x02");
    let end = at(b"PK\x05\x06");
    // its own sizes and places
    changed(end + 10, &[9, 0]).refused("expected 9 entries, found 4");
    changed(end + 12, &[0xff, 0xff, 0xff, 0x7f]).refused("table of contents should be");
    changed(end + 16, &[0xff, 0xff, 0xff, 0x7f]).refused("table of contents should be");
    changed(end + 12, &[0xff; 8]).refused("no end of it");
    changed(directory + 10, &[8]).refused("compressed");
    changed(directory + 8, &[1]).refused("encrypted");
    changed(directory + 24, &[0xff, 0xff, 0, 0]).refused("compressed");
    changed(directory + 20, &[0xfe, 0xff, 0xff, 0, 0xfe, 0xff, 0xff, 0])
        .refused("beyond the entries");
    changed(directory + 20, &[0xff; 8]).refused("is damaged");
    changed(directory + 28, &[0xff, 0xff]).refused("is cut");
    changed(directory + 42, &[7]).refused("not where it should be");
    changed(directory + 42, &[0xf0, 0xff, 0xff, 0xff]).refused("is it cut?");
    changed(at(b"x"), b"y").refused("data.pkl is damaged");
    changed(at(&number), &[7]).refused("are damaged");
    // what is in it
    file(&zip(&[])).refused("with one data.pkl");
    file(&zip(&[("a/data.pkl", &good), ("b/data.pkl", &good)])).refused("with one data.pkl");
    file(&zip(&[("a/data.pkl", &good), ("a/data.pkl", &good)])).refused("stands there twice");
    file(&zip(&[("a/data.pkl", &good)]))
        .refused("storage 0: expected it in the archive, found none");
    file(&zip(&[("a/data.pkl", &good), ("a/data/0", b"12345")]))
        .refused("expected 4 bytes for 1 numbers, found 5");
    file(&zip(&[("a/data.pkl", &vec![b'N'; (1 << 24) + 1])]))
        .refused("data.pkl: expected at most 16777216 bytes");
}

#[test]
fn an_archive_of_entries_that_lie_on_one_another() {
    // ten storages, all of them the same kilobyte
    let function = global("torch._utils", "_rebuild_tensor_v2");
    let names: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let tensors: Vec<(&str, Vec<u8>)> = names
        .iter()
        .map(|name| {
            let args = [storage("FloatStorage", name, 256), int(0), ints(&[256]), ints(&[1])];
            (name.as_str(), [function.clone(), tuple(&args), b"R".to_vec()].concat())
        })
        .collect();
    let pickle = dict(&tensors);
    let kilobyte = vec![0; 1024];
    let files: Vec<String> = names.iter().map(|name| format!("a/data/{name}")).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("a/data.pkl", &pickle)];
    entries.extend(files.iter().map(|name| (name.as_str(), &kilobyte[..])));
    let whole = zip(&entries);
    assert_eq!(File::new("good.pt", &whole).read().expect("whole").tensors.len(), 10);
    // every entry of the directory at the first storage, and the others' bytes taken out
    let starts: Vec<usize> = whole
        .windows(4)
        .enumerate()
        .filter(|(_, w)| *w == b"PK\x03\x04")
        .map(|(at, _)| at)
        .collect();
    let directory = whole.windows(4).position(|w| w == b"PK\x01\x02").expect("there");
    let mut bytes = whole[..starts[2]].to_vec();
    let gone = directory - starts[2];
    let mut rest = whole[directory..].to_vec();
    let heads: Vec<usize> = rest
        .windows(4)
        .enumerate()
        .filter(|(_, w)| *w == b"PK\x01\x02")
        .map(|(at, _)| at)
        .collect();
    for head in &heads[1..] {
        rest[head + 42..head + 46].copy_from_slice(&(starts[1] as u32).to_le_bytes());
    }
    let end = rest.len() - 6;
    rest[end..end + 4].copy_from_slice(&((directory - gone) as u32).to_le_bytes());
    bytes.extend(rest);
    File::new("evil.pt", &bytes).refused("its storages overlap");
}

/// An archive with this table of contents, which is said to have so many entries.
fn archive64(entries: &[u8], directory: &[u8], count: u64) -> Vec<u8> {
    let mut bytes = [entries, directory].concat();
    let end64 = bytes.len() as u64;
    bytes.extend(b"PK\x06\x06");
    bytes.extend([0; 20]);
    for number in [count, count, directory.len() as u64, entries.len() as u64] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(end64.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn a_table_of_contents_without_end() {
    let pickle = dict(&[("x", tensor(1, 0, &[1], &[1]))]);
    let whole = archive(&pickle, &floats(&[1.]));
    let at = whole.windows(4).position(|w| w == b"PK\x01\x02").expect("there");
    let (entries, directory) = whole[..whole.len() - 22].split_at(at);
    let file =
        |directory: &[u8], count| File::new("evil.pt", &archive64(entries, directory, count));
    assert_eq!(file(directory, 4).read().expect("whole").tensors.len(), 1);
    file(directory, 1_000_000).refused("expected 1000000 entries, found 4");
    file(directory, u64::MAX).refused("entries, found 4");
    // a million entries at the same place
    file(&directory.repeat(250_000), 1_000_000).refused("expected a table of contents of at most");
    // as many as there may be, each with a name of its own
    let one = &zip(&[("000000", b"")])[36..][..52];
    let mut many = Vec::new();
    for i in 0..160_000 {
        many.extend(&one[..46]);
        many.extend(format!("{i:06}").bytes());
    }
    file(&many, 160_000).refused("with one data.pkl");
}

#[test]
fn an_index_names_files_of_its_folder_only() {
    let index = |file: &str| {
        let json =
            format!(r#"{{"weight_map": {{"a": {}}}}}"#, serde_json::to_string(file).expect("text"));
        File::new("model.safetensors.index.json", json.as_bytes())
    };
    for name in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        ".",
        "",
        ".hidden",
        "a\\b",
        "C:a",
        "a\0b",
    ] {
        index(name).refused("weight_map: tensor a: expected the name of a file in the same folder");
    }
    let error = index("none.safetensors").read().expect_err("no such file").to_string();
    assert!(error.contains("none.safetensors: "), "{error}");
}

#[test]
fn an_index_of_a_million_entries_and_other_absurd_ones() {
    let json = |content: String| File::new("model.safetensors.index.json", content.as_bytes());
    let entries = |count: usize, file: &dyn Fn(usize) -> String| {
        let mut text = r#"{"weight_map": {"#.to_string();
        for i in 0..count {
            let comma = if i == 0 { "" } else { "," };
            write!(text, r#"{comma}"t{i}":"{}""#, file(i)).expect("text");
        }
        text + "}}"
    };
    json(entries(1_000_000, &|_| "a.safetensors".into()))
        .refused("an index of weights of at most 4194304 bytes, found");
    json(entries(200_000, &|_| "a".into())).refused("at most 65536 tensors");
    json(entries(1000, &|i| format!("{i}.safetensors")))
        .refused("expected 1 to 256 files, found 1000");
    json(entries(0, &|_| String::new())).refused("expected 1 to 256 files, found 0");
    json(r#"{"weight_map": {"a": "x", "a": "y"}}"#.into()).refused("tensor a stands there twice");
    json(r#"{"weight_map": [1]}"#.into()).refused("an object with one entry for each tensor");
    json("{}".into()).refused("missing field `weight_map`");
    json("[".repeat(1 << 20)).refused("expected an index of weights");
}

#[test]
fn the_files_of_an_index_have_its_tensors_and_no_others() {
    let copy = |change: &dyn Fn(String) -> String| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for entry in std::fs::read_dir(fixture("sharded")).expect("the fixture") {
            let entry = entry.expect("the fixture");
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("writable");
        }
        let index = folder.path().join("model.safetensors.index.json");
        let text = std::fs::read_to_string(&index).expect("the fixture");
        std::fs::write(&index, change(text)).expect("writable");
        assert_eq!(weights::find(folder.path()).expect("the index"), index);
        weights::read(&index).map_err(|error| error.to_string())
    };
    assert_eq!(copy(&|text| text).expect("whole").tensors.len(), 3);
    let error = copy(&|text| text.replace("layer.0", "layer.9")).expect_err("another name");
    assert!(error.contains("model-00001-of-00002.safetensors: tensor layer.0.weight: by the index it is not in this file"), "{error}");
    let error = copy(&|text| text.replacen("00001-of", "00002-of", 1)).expect_err("another file");
    assert!(error.contains("of-00002.safetensors: tensor layer."), "{error}");
    let more = |text: String| {
        text.replacen("\"layer.0", "\"more\": \"model-00001-of-00002.safetensors\", \"layer.0", 1)
    };
    let error = copy(&more).expect_err("one too many");
    assert!(
        error.contains("tensor more: by the index it is in this file, but it is not"),
        "{error}"
    );
}

#[test]
fn as_many_tensors_as_a_header_can_name() {
    let mut header = "{".to_string();
    for i in 0..63_000 {
        let comma = if i == 0 { "" } else { "," };
        write!(header, r#"{comma}"{i}":{}"#, one("[1]", "U8", i, i + 1)).expect("text");
    }
    header += "}";
    let file = File::new("many.safetensors", &safetensors(&header, &vec![0; 63_000]));
    let used = allocation_counter::measure(|| {
        assert_eq!(file.read().expect("whole").tensors.len(), 63_000);
    });
    assert!(used.bytes_max < MAX_BYTES, "{} bytes", used.bytes_max);
}
