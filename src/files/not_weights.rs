//! Files that people take for weights: what they are, and what to do with them.

use std::path::Path;

use super::formats;

/// Advice for a file of weights in a format that is not read here.
fn as_weights(kind: &str) -> &'static str {
    match kind {
        "an HDF5 file" => {
            ", as Keras writes it; load it in Python and save the tensors as safetensors"
        }
        "a GGUF file" => " of llama.cpp, whose networks are others",
        "a NumPy array" => "; save the tensors by name as safetensors",
        _ => formats::to_unpack(kind),
    }
}

/// Names a file that begins so and is neither safetensors nor PyTorch's.
pub(super) fn recognize(start: &[u8], path: &Path) -> Option<String> {
    if start.is_empty() {
        return Some("an empty file".into());
    }
    if let Some(kind) = formats::recognize(start) {
        return Some(format!("{kind}{}", as_weights(kind)));
    }
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    let text = is_text(start)
        .then(|| String::from_utf8_lossy(start).trim_start_matches('\u{feff}').to_lowercase());
    let text = text.as_deref().map(str::trim_start);
    let starts_a_page = |text: &str| {
        ["<!doctype html", "<html", "<head", "<!--"].iter().any(|tag| text.starts_with(tag))
    };
    let kind = match (ending.as_deref(), text) {
        // protocol buffers have no first bytes of their own
        (Some("onnx"), _) if start[0] == 8 => {
            "an ONNX file; save the state dict of the PyTorch model instead"
        }
        (Some("pb"), _) => "a TensorFlow graph; save the tensors as safetensors in Python",
        (Some("ckpt" | "index"), None) => {
            "a TensorFlow checkpoint; save the tensors as safetensors in Python"
        }
        (_, Some(text)) if starts_a_page(text) => {
            "an HTML page, perhaps that of an error or of a login where a download was meant"
        }
        (_, Some(text)) if text.starts_with('<') => "XML or HTML",
        (_, Some(text)) if text.starts_with(['{', '[']) => {
            "JSON, such as a configuration; weights are another file"
        }
        (_, Some(_)) => "text",
        (_, None) => return None,
    };
    Some(kind.into())
}

/// Names an archive of these entries that PyTorch did not write.
pub(super) fn recognize_archive<'a>(names: impl Iterator<Item = &'a str>) -> &'static str {
    let names: Vec<&str> = names.collect();
    let has = |ending: &str| names.iter().any(|name| name.ends_with(ending));
    if has("model.weights.h5") {
        "a model of Keras; load it in Python and save the tensors as safetensors"
    } else if !names.is_empty() && names.iter().all(|name| name.ends_with(".npy")) {
        "NumPy arrays (.npz); save them as safetensors"
    } else if has("word/document.xml") || has("xl/workbook.xml") {
        "a document of an office program"
    } else if has("data.pkl") {
        "several"
    } else {
        "another archive"
    }
}

/// Mostly printable characters, and none that text never has.
fn is_text(start: &[u8]) -> bool {
    let (valid, whole) = formats::text_at_start(start);
    whole && !valid.is_empty() && !valid.chars().any(|c| c.is_control() && !c.is_whitespace())
}
