//! Files of the mesh folder: private, whole or absent, and one process at a time.
//!
//! Nothing here knows what the files mean.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::TrustError;

const LOCK_FILE: &str = "lock";

/// The user we act as.
pub(super) fn our_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Refuses what belongs to another user or is open to one.
pub(super) fn check_private(path: &Path, found: &fs::Metadata) -> Result<(), TrustError> {
    let us = our_uid();
    if found.uid() != us {
        return Err(TrustError::Owner { path: path.to_owned(), owner: found.uid(), us });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        let wanted = if found.is_dir() { 0o700 } else { 0o600 };
        return Err(TrustError::Exposed { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Makes the folder, and what is missing above it, unless it is there; then checks that it is ours
/// alone. An empty one of ours that others may only look into, as `mkdir` makes it, is closed to
/// them.
pub(super) fn make_private_folder(path: &Path) -> Result<(), TrustError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(TrustError::io("make the folder", path))?;
    let look = || fs::metadata(path).map_err(TrustError::io("look at", path));
    let found = look()?;
    let is_fresh = found.uid() == our_uid()
        && found.mode() & 0o022 == 0
        && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if is_fresh && found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(TrustError::io("close to others", path))?;
    }
    check_private(path, &look()?)
}

/// Waits until no other process or thread holds the folder. Released when the file is dropped.
///
/// Not reentrant: taking it twice in one thread waits for ever.
pub(super) fn lock(folder: &Path) -> Result<File, TrustError> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(TrustError::io("open", &path))?;
    file.lock().map_err(TrustError::io("lock", &path))?;
    Ok(file)
}

/// Reads a text file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, TrustError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrustError::io("read", path)(error)),
    }
}

/// Reads a private key; refuses one that others may read. `None` when there is none.
pub(super) fn read_secret(path: &Path) -> Result<Option<String>, TrustError> {
    match fs::metadata(path) {
        Ok(found) => check_private(path, &found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrustError::io("look at", path)(error)),
    }
    read(path)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), TrustError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TrustError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Writes a file so that readers, and a machine that loses power, see the old one or the new one.
pub(super) fn write(folder: &Path, name: &str, text: &str) -> Result<(), TrustError> {
    let path = folder.join(name);
    let beside = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, &path))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        // Best effort: what is left is private and is never read.
        let _ = fs::remove_file(&beside);
        TrustError::io("write", &path)(error)
    })
}
