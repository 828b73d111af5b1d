//! The Hub of the tests as a program, for `scripts/hub_with_python.py` and for trying things out.
//!
//! ```sh
//! cargo run --release --example hub_server -- org/name DIR
//! ```
//!
//! Serves the files of DIR as the model org/name, prints the address, and ends when standard input
//! does. Tokens: hf_writer may write, hf_reader may not.

#[path = "../tests/hub/server/mod.rs"]
mod server;

use std::io::Read;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let server = server::Server::start();
    if let [id, dir] = &arguments[..] {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.push((name.into_owned(), std::fs::read(&path)?));
        }
        let files: Vec<_> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        server.add(id, &files);
    }
    println!("{}", server.url);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
