//! The handwritten digits that the network learns from and is measured on.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::infer::{PIXELS, Patch};

/// The data set as it lies in `data/`; see `data/README.md` for its source and licence.
const ARCHIVE: &[u8] = include_bytes!("../data/digits.csv.gz");

/// Rows in the whole set.
pub const ROWS: usize = 1_797;

/// Rows used for training: 0 to 1,199. The rest is held out.
pub const TRAINING_ROWS: usize = 1_200;

/// The grey level of full ink in the data set.
pub const FULL_INK: u8 = 16;

/// No archive inflates beyond this: 1,797 rows take about 260 kB.
const MAX_CSV_BYTES: u64 = 4 << 20;

/// One handwritten digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digit {
    /// 8x8 grey levels, row by row, 0 (paper) to 16 (full ink).
    pub pixels: [u8; PIXELS],
    /// What was written: 0 to 9.
    pub label: u8,
}

impl Digit {
    /// The digit as input of the network: 0 to 1, ink bright.
    pub fn patch(&self) -> Patch {
        Patch { pixels: self.pixels.map(|level| f32::from(level) / f32::from(FULL_INK)) }
    }
}

/// All digits, split as `data/README.md` asks for.
#[derive(Debug, Clone)]
pub struct Digits(Vec<Digit>);

impl Digits {
    /// Unpacks the data set that is compiled into this crate.
    ///
    /// # Errors
    ///
    /// Only where the crate was built from a damaged checkout.
    pub fn load() -> Result<Self, DataError> {
        Self::from_csv_gz(ARCHIVE)
    }

    /// Reads 1,797 rows of 64 grey levels and a label.
    fn from_csv_gz(archive: &[u8]) -> Result<Self, DataError> {
        let mut csv = Vec::new();
        GzDecoder::new(archive).take(MAX_CSV_BYTES).read_to_end(&mut csv).map_err(DataError::Gzip)?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_slice());
        let mut digits = Vec::with_capacity(ROWS);
        for (row, record) in reader.records().enumerate() {
            let record = record.map_err(|error| DataError::Csv(error.to_string()))?;
            digits.push(parse(row, &record)?);
        }
        if digits.len() != ROWS {
            return Err(DataError::RowCount(digits.len()));
        }
        Ok(Self(digits))
    }

    /// Rows 0 to 1,199.
    pub fn training(&self) -> &[Digit] {
        &self.0[..TRAINING_ROWS]
    }

    /// Rows 1,200 to 1,796: never seen by the training.
    pub fn held_out(&self) -> &[Digit] {
        &self.0[TRAINING_ROWS..]
    }
}

fn parse(row: usize, record: &csv::StringRecord) -> Result<Digit, DataError> {
    let bad = |column: usize| DataError::Value { row, column };
    let mut values = [0u8; PIXELS + 1];
    if record.len() != values.len() {
        return Err(bad(record.len()));
    }
    for (column, (value, text)) in values.iter_mut().zip(record).enumerate() {
        let bound = if column == PIXELS { 9 } else { FULL_INK };
        *value = match text.trim().parse::<u8>() {
            Ok(number) if number <= bound => number,
            _ => return Err(bad(column)),
        };
    }
    let mut pixels = [0; PIXELS];
    pixels.copy_from_slice(&values[..PIXELS]);
    Ok(Digit { pixels, label: values[PIXELS] })
}

/// Why the data set could not be read. A retry can't help: take a fresh checkout.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The archive is damaged.
    #[error("data/digits.csv.gz can't be unpacked ({0}): restore the file and build again")]
    Gzip(#[source] std::io::Error),
    /// The table is damaged.
    #[error("data/digits.csv.gz holds no table ({0}): restore the file and build again")]
    Csv(String),
    /// A row is short, or a value is no number in its range.
    #[error("data/digits.csv.gz: row {row}, column {column} is not as data/README.md says: restore the file")]
    Value {
        /// Counted from 0.
        row: usize,
        /// Counted from 0; the row's length where the row is too short or too long.
        column: usize,
    },
    /// The set is cut short or has grown.
    #[error("data/digits.csv.gz holds {0} rows where {ROWS} belong: restore the file and build again")]
    RowCount(usize),
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[test]
    fn the_set_is_complete_and_split() {
        let digits = Digits::load().expect("the committed data");
        assert_eq!(digits.training().len(), 1_200);
        assert_eq!(digits.held_out().len(), 597);
        for label in 0..10 {
            assert!(digits.training().iter().filter(|digit| digit.label == label).count() > 100);
        }
        assert!(digits.held_out().iter().any(|digit| digit.pixels.contains(&FULL_INK)));
    }

    #[test]
    fn damaged_archives_are_refused() {
        assert!(matches!(Digits::from_csv_gz(&ARCHIVE[..1_000]), Err(DataError::Gzip(_))));
        assert!(matches!(Digits::from_csv_gz(b"no archive"), Err(DataError::Gzip(_))));
        assert!(matches!(Digits::from_csv_gz(&gzip("")), Err(DataError::RowCount(0))));
        let short = gzip("1,2,3\n");
        assert!(matches!(Digits::from_csv_gz(&short), Err(DataError::Value { row: 0, column: 3 })));
        let dark = gzip(&format!("{}9\n", "17,".repeat(64)));
        assert!(matches!(Digits::from_csv_gz(&dark), Err(DataError::Value { row: 0, column: 0 })));
        let eleven = gzip(&format!("{}10\n", "16,".repeat(64)));
        assert!(matches!(Digits::from_csv_gz(&eleven), Err(DataError::Value { row: 0, column: 64 })));
    }
}
