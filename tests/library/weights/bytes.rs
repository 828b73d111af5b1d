//! Files put together by hand.

/// A pickle of protocol 2 with these instructions.
pub fn pickle(instructions: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x02".to_vec(), instructions.concat(), b".".to_vec()].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![b'X'];
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// A whole number of any size.
pub fn int(number: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &number.to_le_bytes()].concat()
}

pub fn tuple(parts: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), parts.concat(), b"t".to_vec()].concat()
}

pub fn ints(numbers: &[i64]) -> Vec<u8> {
    tuple(&numbers.iter().copied().map(int).collect::<Vec<_>>())
}

pub fn storage(class: &str, key: &str, count: i64) -> Vec<u8> {
    let id = [text("storage"), global("torch", class), text(key), text("cpu"), int(count)];
    [tuple(&id), b"Q".to_vec()].concat()
}

/// A tensor of `count` stored floats.
pub fn tensor(count: i64, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let args = [
        storage("FloatStorage", "0", count),
        int(offset),
        ints(size),
        ints(stride),
        b"\x89".to_vec(),
        b"}".to_vec(),
    ];
    let function = global("torch._utils", "_rebuild_tensor_v2");
    [function, tuple(&args), b"R".to_vec()].concat()
}

/// A pickle of a dict.
pub fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(name, value)| [text(name), value.clone()]);
    pickle(&[b"}(", &entries.collect::<Vec<_>>().concat(), b"u"])
}

/// A zip archive of stored entries.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let start = bytes.len() as u32;
        // flags to sizes, the same in both places
        let mut shared = vec![0; 8];
        shared.extend(crc32fast::hash(content).to_le_bytes());
        shared.extend((content.len() as u32).to_le_bytes());
        shared.extend((content.len() as u32).to_le_bytes());
        shared.extend((name.len() as u16).to_le_bytes());
        bytes.extend(b"PK\x03\x04\x00\x00");
        bytes.extend(&shared);
        bytes.extend([0, 0]);
        bytes.extend(name.as_bytes());
        bytes.extend(*content);
        directory.extend(b"PK\x01\x02\x00\x00\x00\x00");
        directory.extend(&shared);
        directory.extend([0; 12]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = bytes.len() as u32;
    let len = directory.len() as u32;
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
    bytes.extend([(entries.len() as u16).to_le_bytes(); 2].concat());
    bytes.extend(len.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// What `torch.save` makes of a pickle and one storage.
pub fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    zip(&[
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/data/0", storage),
        ("a/version", b"3\n"),
    ])
}

pub fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A safetensors file with this header.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), data].concat()
}
