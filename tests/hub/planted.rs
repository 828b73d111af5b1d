//! A cache that others can write to: their links lead no write and no read elsewhere.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::{World, failed, files, model_files, says};

/// `git hash-object README.md`: the name of its blob.
const README: &str = "c06b64da4b222b355e7a83daac91e2572f67e525";

/// What is not in the cache and stays as it is.
const OUTSIDE: &str = "precious";

/// A folder with a file, both outside of the cache.
fn outside(world: &World) -> std::path::PathBuf {
    let folder = world.home.path().join("outside");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), OUTSIDE).unwrap();
    folder
}

/// Puts a link in the place of whatever there is.
fn plant(target: &Path, link: &Path) {
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(link);
    let _ = std::fs::remove_dir_all(link);
    symlink(target, link).unwrap();
}

#[test]
fn no_write_follows_a_link() {
    let commit = World::new().commit;
    let partial = format!("blobs/{README}.incomplete");
    let blob = format!("blobs/{README}");
    let snapshot = format!("snapshots/{commit}");
    let lock = format!("../.locks/models--org--model/{README}.lock");
    for (link, is_file) in [
        (partial.as_str(), true),
        (&blob, true),
        (&lock, true),
        ("refs/main", true),
        ("../.locks/models--org--model", false),
        ("../.locks", false),
        ("blobs", false),
        ("refs", false),
        ("snapshots", false),
        (&snapshot, false),
    ] {
        for there in [true, false] {
            let world = World::new();
            let outside = outside(&world);
            let target = match (is_file, there) {
                (true, true) => outside.join("file"),
                (true, false) => outside.join("new"),
                (false, true) => outside.clone(),
                (false, false) => world.home.path().join("new"),
            };
            plant(&target, &world.cached(link));
            let message = world.fails("pull org/model");
            let name = link.rsplit('/').next().unwrap();
            says(&message, &[name, "link", target.to_str().unwrap(), "HF_HUB_CACHE"]);
            let left = files(outside);
            assert_eq!(left.len(), 1, "{link}");
            assert_eq!(left["file"], OUTSIDE.as_bytes(), "{link}");
            assert!(!world.home.path().join("new").exists(), "{link}");
        }
    }
}

#[test]
fn no_read_follows_a_link_out_of_the_cache() {
    let world = World::new();
    world.json("pull org/model");
    let outside = outside(&world);
    let snapshot = world.cached(&format!("snapshots/{}", world.commit));
    // the model has no such file, but a loader would read it
    let link = snapshot.join("tokenizer_config.json");
    plant(&outside.join("file"), &link);
    let offline =
        |world: &World| failed(world.command("pull org/model").env("HF_HUB_OFFLINE", "1"));
    for message in [world.fails("pull org/model"), offline(&world)] {
        says(&message, &["tokenizer_config.json", "link", "outside/file"]);
    }
    std::fs::remove_file(link).unwrap();

    plant(&outside.join("file"), &snapshot.join("config.json"));
    says(&offline(&world), &["config.json", "link"]);
    // by a link in the repository's folder
    plant(&outside.join("file"), &world.cached("blobs/other"));
    plant(Path::new("../../blobs/other"), &snapshot.join("config.json"));
    says(&offline(&world), &["config.json", "link"]);
    plant(&outside.join("file"), &world.cached("refs/main"));
    says(&offline(&world), &["refs/main", "link"]);
    std::fs::remove_file(world.cached("refs/main")).unwrap();
    // online it is replaced by the right one
    world.json("pull org/model");
    assert_eq!(world.snapshot(), model_files());
}

#[test]
fn a_model_may_be_kept_on_another_disk() {
    let world = World::new();
    let disk = world.home.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    plant(&disk, &world.home.path().join("hub/models--org--model"));
    world.json("pull org/model");
    assert_eq!(world.snapshot(), model_files());
    crate::done(world.command("pull org/model --json").env("HF_HUB_OFFLINE", "1"));
}
