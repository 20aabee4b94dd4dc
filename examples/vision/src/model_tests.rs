use super::*;

fn training() -> Training {
    Training { version: FORMAT_VERSION, seed: 4, epochs: 2, trained_rows: [0, 9], held_out_accuracy: 0.5 }
}

fn weights() -> Weights {
    let numbers = (0..PARAMETERS).map(|index| index as f32 / 1_000.0).collect();
    Weights::from_numbers(numbers, training()).expect("finite")
}

/// A whole file, but for what `change` does to its tensors: name, number type, shape, bytes.
fn file(
    training: Option<&str>,
    change: impl Fn(&mut Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>),
) -> Vec<u8> {
    let mut tensors: Vec<_> = TENSORS
        .iter()
        .map(|spec| (spec.name, Dtype::F32, spec.shape.to_vec(), vec![0; spec.numbers() * 4]))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape"))
    });
    let metadata = training.map(|text| HashMap::from([(METADATA_KEY.to_owned(), text.to_owned())]));
    safetensors::serialize(views, metadata).expect("it serialises")
}

fn described() -> String {
    serde_json::to_string(&training()).expect("it serialises")
}

fn refusal(bytes: &[u8]) -> ModelError {
    let error = Weights::from_safetensors(bytes).expect_err("the file is damaged");
    let message = error.to_string();
    assert!(!message.contains('\n') && message.contains(": "), "{message}");
    error
}

#[test]
fn weights_survive_a_round_trip() {
    let bytes = weights().to_safetensors().expect("they serialise");
    assert_eq!(Weights::from_safetensors(&bytes).expect("whole"), weights());
    assert_eq!(weights().to_safetensors().expect("again"), bytes);
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("weights.safetensors");
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(Weights::load(&path).expect("whole").training(), &training());
}

#[test]
fn the_committed_weights_are_whole() {
    let weights = Weights::trained().expect("whole");
    assert_eq!(weights.training().trained_rows, [0, 1_199]);
    assert_eq!(weights.as_slice().len(), PARAMETERS);
}

#[test]
fn every_cut_is_refused() {
    let bytes = weights().to_safetensors().expect("they serialise");
    for length in (0..600).chain((600..bytes.len()).step_by(1_009)).chain([bytes.len() - 1]) {
        assert!(matches!(refusal(&bytes[..length]), ModelError::Corrupt { .. }), "{length} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(refusal(&longer), ModelError::Corrupt { .. }));
}

#[test]
fn damaged_headers_are_refused_without_a_panic() {
    let bytes = weights().to_safetensors().expect("they serialise");
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("long enough")) as usize;
    for index in 0..header {
        for bit in [0, 3, 7] {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            // Some flips only change a number in the description, which no check can tell.
            if let Err(error) = Weights::from_safetensors(&damaged) {
                assert!(!error.to_string().contains('\n'));
            }
        }
    }
    assert!(matches!(refusal(b"\x89PNG\r\n\x1a\n0000"), ModelError::Corrupt { .. }));
}

#[test]
fn missing_tensors_are_named() {
    let bytes = file(Some(&described()), |tensors| {
        tensors.retain(|tensor| tensor.0 != "dense1.weight");
    });
    let error = refusal(&bytes);
    assert_eq!(
        error.to_string(),
        "the weights: the tensor `dense1.weight` is missing: use a file that train-digits wrote"
    );
}

#[test]
fn other_shapes_are_refused() {
    let bytes = file(Some(&described()), |tensors| tensors[0].2 = vec![1, 9, 1, 16]);
    let error = refusal(&bytes);
    assert!(matches!(error, ModelError::WrongShape { tensor: "conv1.weight", .. }), "{error}");
    assert!(error.to_string().contains("[1, 9, 1, 16]"), "{error}");
    let bytes = file(Some(&described()), |tensors| {
        tensors[7].2 = vec![0];
        tensors[7].3 = vec![];
    });
    assert!(matches!(refusal(&bytes), ModelError::WrongShape { tensor: "dense2.bias", .. }));
}

#[test]
fn other_number_types_are_refused() {
    let bytes = file(Some(&described()), |tensors| tensors[1].1 = Dtype::I32);
    let error = refusal(&bytes);
    assert!(matches!(error, ModelError::WrongDtype { tensor: "conv1.bias", .. }), "{error}");
}

#[test]
fn infinite_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let bytes =
            file(Some(&described()), |tensors| tensors[3].3[20..24].copy_from_slice(&bad.to_le_bytes()));
        let error = refusal(&bytes);
        assert!(matches!(error, ModelError::NotFinite { tensor: "conv2.bias", index: 5, .. }), "{error}");
        let mut numbers = vec![0.0; PARAMETERS];
        numbers[CONV2_BIAS.offset + 5] = bad;
        assert!(matches!(
            Weights::from_numbers(numbers, training()),
            Err(ModelError::NotFinite { tensor: "conv2.bias", index: 5, .. })
        ));
    }
    assert!(matches!(Weights::from_numbers(vec![0.0], training()), Err(ModelError::WrongCount(1))));
}

#[test]
fn the_description_is_checked() {
    assert!(matches!(refusal(&file(None, |_| ())), ModelError::Metadata { .. }));
    assert!(matches!(refusal(&file(Some("{\n}"), |_| ())), ModelError::Metadata { .. }));
    let later = described().replace("\"version\":1", "\"version\":2");
    assert!(matches!(refusal(&file(Some(&later), |_| ())), ModelError::Version { found: 2, .. }));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().expect("a folder");
    let missing = directory.path().join("none.safetensors");
    let error = Weights::load(&missing).expect_err("there is no file");
    assert!(matches!(error, ModelError::Unreadable { .. }));
    assert!(error.to_string().contains("none.safetensors"), "{error}");
    assert!(matches!(Weights::load(directory.path()), Err(ModelError::Unreadable { .. })));
    let large = directory.path().join("large.safetensors");
    let file = File::create(&large).expect("a file");
    file.set_len(MAX_FILE_BYTES + 1).expect("a sparse file");
    let error = Weights::load(&large).expect_err("it is too large");
    assert!(matches!(error, ModelError::TooLarge { .. }) && error.to_string().contains("large.safetensors"));
}
