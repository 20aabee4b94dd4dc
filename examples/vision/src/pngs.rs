//! Frames from a user's own PNG files: 8 and 16 bits, grey, colour or palette, with or without transparency.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use png::{ColorType, Decoder, DecodingError, Limits, Transformations};

use crate::frame::{Frame, MAX_SIDE, MIN_SIDE};

/// The most files that one folder may hold.
pub const MAX_FILES: usize = 10_000;
/// Memory that decoding one file may take beside its pixels.
const DECODER_BYTES: usize = 64 << 20;
/// Pictures in other formats, which a user may believe we read; other files in the folder are none of ours.
const OTHER_PICTURES: [&str; 12] =
    ["jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff", "pgm", "ppm", "avif", "heic", "svg"];

/// The PNG files of a folder, in the order of their names. They are read one by one, when asked for.
#[derive(Debug, Clone)]
pub struct PngFrames {
    paths: Vec<PathBuf>,
}

impl PngFrames {
    /// Lists `directory`, not its subfolders. Hidden files and files that are no pictures are passed over.
    ///
    /// # Errors
    ///
    /// [`PngError`] names the folder or the file at fault.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, PngError> {
        let directory = directory.as_ref();
        let unreadable = |source| PngError::Directory { directory: directory.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden || path.is_dir() {
                continue;
            }
            let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
            match extension.as_deref() {
                Some("png") => paths.push(path),
                Some(other) if OTHER_PICTURES.contains(&other) => {
                    return Err(PngError::NotPng { file: path });
                }
                _ => {}
            }
            if paths.len() > MAX_FILES {
                return Err(PngError::TooMany { directory: directory.to_owned() });
            }
        }
        if paths.is_empty() {
            return Err(PngError::Empty { directory: directory.to_owned() });
        }
        paths.sort();
        Ok(Self { paths })
    }

    /// How many files there are: 1 to [`MAX_FILES`].
    #[expect(clippy::len_without_is_empty, reason = "an empty folder is refused when it is opened")]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// The files.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Decodes the file for the frame `number` of `camera`: after the last file comes the first again.
    ///
    /// # Errors
    ///
    /// [`PngError`] names the file at fault.
    pub fn frame(&self, camera: u32, number: u64) -> Result<Frame, PngError> {
        let path = &self.paths[(number % self.paths.len() as u64) as usize];
        read(path, camera, number)
    }
}

/// Decodes one PNG file into a frame. Of an animation it takes the first picture; what is transparent becomes
/// white; colours become their luminance (ITU-R BT.601).
///
/// # Errors
///
/// [`PngError`] names the file and what to do.
pub fn read(path: impl AsRef<Path>, camera: u32, number: u64) -> Result<Frame, PngError> {
    let path = path.as_ref();
    let file = || path.to_owned();
    let opened = File::open(path).map_err(|source| PngError::Unreadable { file: file(), source })?;
    let damaged = |error: DecodingError| match error {
        DecodingError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            PngError::Unreadable { file: file(), source }
        }
        DecodingError::LimitsExceeded => PngError::TooComplex { file: file() },
        other => PngError::Damaged { file: file(), reason: one_line(&other.to_string()) },
    };
    let mut signature = BufReader::new(opened);
    if !has_signature(&mut signature).map_err(|source| PngError::Unreadable { file: file(), source })? {
        return Err(PngError::NotPng { file: file() });
    }
    let mut decoder = Decoder::new_with_limits(signature, Limits { bytes: DECODER_BYTES });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = (header.width, header.height);
    // Before any memory is taken for the pixels.
    if !(MIN_SIDE..=MAX_SIDE).contains(&width) || !(MIN_SIDE..=MAX_SIDE).contains(&height) {
        return Err(PngError::Size { file: file(), width, height });
    }
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size = reader.output_buffer_size().ok_or_else(|| PngError::TooComplex { file: file() })?;
    let mut samples = vec![0; size];
    let info = reader.next_frame(&mut samples).map_err(damaged)?;
    samples.truncate(info.buffer_size());
    let pixels = to_grey(info.color_type, &samples);
    Frame::new(camera, number, info.width, info.height, pixels)
        .map_err(|error| PngError::Damaged { file: file(), reason: error.to_string() })
}

/// Looks at the first eight bytes and leaves them there.
fn has_signature(reader: &mut BufReader<File>) -> std::io::Result<bool> {
    use std::io::{Read, Seek};
    let mut start = Vec::with_capacity(8);
    reader.by_ref().take(8).read_to_end(&mut start)?;
    reader.rewind()?;
    Ok(start == *b"\x89PNG\r\n\x1a\n")
}

/// 8-bit samples of any layout to one grey level a pixel.
fn to_grey(color: ColorType, samples: &[u8]) -> Vec<u8> {
    match color {
        // A palette comes expanded to colours, so an index that is left means the same as grey.
        ColorType::Grayscale | ColorType::Indexed => samples.to_vec(),
        ColorType::GrayscaleAlpha => {
            samples.as_chunks().0.iter().map(|&[grey, alpha]| on_white(grey, alpha)).collect()
        }
        ColorType::Rgb => samples.as_chunks().0.iter().map(|&rgb| luminance(rgb)).collect(),
        ColorType::Rgba => samples
            .as_chunks()
            .0
            .iter()
            .map(|&[red, green, blue, alpha]| on_white(luminance([red, green, blue]), alpha))
            .collect(),
    }
}

fn luminance([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    ((sum + 500) / 1_000) as u8
}

fn on_white(grey: u8, alpha: u8) -> u8 {
    let (grey, alpha) = (u32::from(grey), u32::from(alpha));
    ((grey * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why a folder or a file gives no frames. Nothing was read; a retry can't help before the files change.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The folder can't be listed.
    #[error("{}: can't be listed ({source}): give a folder of PNG files", .directory.display())]
    Directory {
        /// The folder.
        directory: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder holds no PNG file.
    #[error("{}: holds no file whose name ends in .png: give a folder of PNG files", .directory.display())]
    Empty {
        /// The folder.
        directory: PathBuf,
    },
    /// The folder holds more files than anyone's camera takes for a demo.
    #[error("{}: holds more than {MAX_FILES} PNG files: give a folder with fewer", .directory.display())]
    TooMany {
        /// The folder.
        directory: PathBuf,
    },
    /// A file can't be opened or read.
    #[error("{}: can't be read ({source}): check that it exists and that you may read it", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is something else.
    #[error("{}: is no PNG file: convert it to PNG or take it out of the folder", .file.display())]
    NotPng {
        /// The file.
        file: PathBuf,
    },
    /// A PNG file was cut or damaged.
    #[error("{}: is a damaged PNG file ({reason}): save it again or take it out of the folder", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture is too large or too small.
    #[error("{}: has {width} x {height} pixels, but each side must have {MIN_SIDE} to {MAX_SIDE}: scale it or take it out of the folder", .file.display())]
    Size {
        /// The file.
        file: PathBuf,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Decoding would take more memory than a picture of that size should.
    #[error("{}: takes more than {} MiB to decode: save it again without extra data", .file.display(), DECODER_BYTES >> 20)]
    TooComplex {
        /// The file.
        file: PathBuf,
    },
}

#[cfg(test)]
#[path = "pngs_tests.rs"]
mod tests;
