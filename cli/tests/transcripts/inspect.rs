//! What `inspect` shows of files on disk and in snapshots.

use std::{fs, path::Path};

use serde_json::Value;

use crate::sandbox::Sandbox;

fn sample(name: &str) -> Vec<u8> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/layouts/samples");
    fs::read(samples.join(name)).unwrap()
}

#[test]
fn the_tensors_of_a_file_on_disk_are_shown_with_what_they_would_take() {
    let sandbox = Sandbox::empty();
    sandbox.write("model.safetensors", &sample("torch.safetensors"));
    let said = sandbox.run(["inspect", "model.safetensors"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    insta::assert_snapshot!(said.out);
    assert!(!sandbox.path("repo").exists(), "no repository is needed");
}

#[test]
fn a_file_in_a_snapshot_is_shown_as_it_is_stored() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("src/model.safetensors", &sample("torch.safetensors"));
    sandbox.write("src/zeros", &[0; 300_000]);
    sandbox.backup();
    let wanted = "latest:/src/model.safetensors";
    let json = |said: &str| serde_json::from_str::<Value>(said).unwrap();
    let stored = json(&sandbox.run(["--json", "inspect", wanted]).out);
    let mut trial = json(
        &sandbox
            .run(["--json", "inspect", "src/model.safetensors"])
            .out,
    );
    trial["file"] = wanted.into();
    assert_eq!(stored, trial);
    assert_eq!(stored["format"], "safetensors");
    let is_embed = |tensor: &&Value| tensor["name"] == "embed.weight";
    let embed = stored["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .find(is_embed)
        .unwrap();
    assert_eq!(
        (&embed["dtype"], &embed["size"]),
        (&"bf16".into(), &28_000.into())
    );
    let chunks = |part: &Value| part["codecs"]["planes-bf16"]["chunks"] == 1;
    assert!(stored["parts"].as_array().unwrap().iter().any(chunks));
    let zeros = sandbox.run(["inspect", "latest:/src/zeros"]).out;
    assert!(zeros.contains("content"), "{zeros}");
    assert!(zeros.contains("zeros"), "{zeros}");
}

#[test]
fn what_cannot_be_inspected_is_named() {
    let sandbox = Sandbox::with_repository();
    sandbox.backup();
    for (wanted, what) in [
        ("nothing", "nothing"),
        ("src", "not a regular file"),
        ("latest:/nothing", "nothing"),
        ("latest:", "not a file"),
    ] {
        let said = sandbox.run(["inspect", wanted]);
        assert_eq!(said.code, 1, "{wanted}");
        assert!(said.err.contains(what), "{said:?}");
    }
}
