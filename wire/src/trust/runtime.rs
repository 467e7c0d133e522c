//! Where the sockets and locks of a mesh live on this machine.
//!
//! A folder of the system's runtime area where there is one, else below `/tmp`. Processes of one
//! user may see different environments (a login shell has `XDG_RUNTIME_DIR`, a system service has
//! not), and two answers would be two host directories on one host. So the first answer is noted in
//! the mesh folder and holds as long as that folder exists.

use std::{
    env, fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{TrustError, disk};

/// The longest path of a Unix socket on Linux, in bytes.
pub const MAX_SOCKET_PATH: usize = 107;

/// The longest file name of a socket in the runtime folder, in bytes.
pub const MAX_SOCKET_NAME: usize = 32;

/// The file in the mesh folder that notes the answer.
const NOTE: &str = "runtime";

/// The runtime folder of the mesh in `mesh_folder`; made if needed.
pub(super) fn folder(mesh_folder: &Path) -> Result<PathBuf, TrustError> {
    let preferred = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    choose(mesh_folder, preferred.as_deref(), Path::new("/tmp"))
}

fn choose(
    mesh_folder: &Path,
    preferred: Option<&Path>,
    last_resort: &Path,
) -> Result<PathBuf, TrustError> {
    let canonical = fs::canonicalize(mesh_folder).map_err(TrustError::io("find", mesh_folder))?;
    let digest = Sha256::digest(canonical.as_os_str().as_bytes());
    let name = data_encoding::HEXLOWER.encode(&digest[..8]);

    // Without the lock two processes could note two answers. A mesh folder that cannot be written
    // to has no note, and its processes agree only if their environments do.
    let lock = disk::lock(mesh_folder).ok();
    if let Some(noted) = noted(mesh_folder, &name) {
        return Ok(noted);
    }
    let usual = preferred.filter(|base| is_usable(base, &name)).map(|base| base.join("layer-cake"));
    let last = last_resort.join(format!("layer-cake-{}", disk::our_uid()));
    let chosen = match usual.map(|parent| make_within(&parent, &name)) {
        Some(Ok(chosen)) => chosen,
        // The runtime area may be there and closed to us.
        Some(Err(TrustError::Io { .. })) | None => make_within(&last, &name)?,
        Some(Err(error)) => return Err(error),
    };
    let note = chosen.to_str().filter(|_| lock.is_some());
    if let Some(Err(error)) = note.map(|text| disk::write(mesh_folder, NOTE, text)) {
        tracing::debug!(%error, "the place of the sockets is not noted");
    }
    Ok(chosen)
}

/// The answer given before, while it is still good for this mesh folder.
fn noted(mesh_folder: &Path, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(disk::read(&mesh_folder.join(NOTE)).ok()??);
    let parent = path.parent()?;
    // A folder that was copied brings the note of the original along.
    let is_of_this_folder = path.is_absolute() && path.file_name()? == name;
    (is_of_this_folder && fits(&path) && check(parent).is_ok() && check(&path).is_ok())
        .then_some(path)
}

fn is_usable(base: &Path, name: &str) -> bool {
    let is_ours =
        fs::metadata(base).is_ok_and(|found| found.is_dir() && found.uid() == disk::our_uid());
    base.is_absolute() && is_ours && fits(&base.join("layer-cake").join(name))
}

fn fits(folder: &Path) -> bool {
    folder.as_os_str().len() + 1 + MAX_SOCKET_NAME <= MAX_SOCKET_PATH
}

fn make_within(parent: &Path, name: &str) -> Result<PathBuf, TrustError> {
    let chosen = parent.join(name);
    make(parent)?;
    make(&chosen)?;
    Ok(chosen)
}

/// Makes one folder, unless it is there, and checks that it is ours.
fn make(path: &Path) -> Result<(), TrustError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(TrustError::io("make the folder", path)(error))
        }
        _ => check(path),
    }
}

/// A folder, not a link to one: in `/tmp` anybody may have put something in our place.
fn check(path: &Path) -> Result<(), TrustError> {
    let found = fs::symlink_metadata(path).map_err(TrustError::io("look at", path))?;
    if !found.is_dir() {
        return Err(TrustError::Damaged {
            path: path.to_owned(),
            why: "it should be a folder: remove it".to_owned(),
        });
    }
    disk::check_private(path, &found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        mesh: PathBuf,
        xdg: PathBuf,
        tmp: PathBuf,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let [mesh, xdg, tmp] = ["mesh", "x", "t"].map(|name| dir.path().join(name));
        for path in [&mesh, &xdg, &tmp] {
            make(path).unwrap();
        }
        Place { _dir: dir, mesh, xdg, tmp }
    }

    #[test]
    fn a_shell_and_a_service_of_one_user_agree() {
        let place = place();
        let shell = choose(&place.mesh, Some(&place.xdg), &place.tmp).unwrap();
        assert!(shell.starts_with(&place.xdg));
        assert_eq!(choose(&place.mesh, None, &place.tmp).unwrap(), shell);

        // The user logs out and the system clears the runtime area.
        fs::remove_dir_all(place.xdg.join("layer-cake")).unwrap();
        let service = choose(&place.mesh, None, &place.tmp).unwrap();
        assert!(service.starts_with(&place.tmp));
        assert_eq!(choose(&place.mesh, Some(&place.xdg), &place.tmp).unwrap(), service);
        assert_eq!(fs::metadata(&service).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_not_used() {
        let place = place();
        let long = place.xdg.join("a".repeat(60));
        make(&long).unwrap();
        let chosen = choose(&place.mesh, Some(&long), &place.tmp).unwrap();
        assert!(chosen.starts_with(&place.tmp));
        assert!(chosen.join("s".repeat(MAX_SOCKET_NAME)).as_os_str().len() <= MAX_SOCKET_PATH);
    }

    #[test]
    fn what_somebody_else_put_in_our_place_is_refused() {
        let place = place();
        let ours = place.tmp.join(format!("layer-cake-{}", disk::our_uid()));
        symlink(&place.xdg, &ours).unwrap();
        assert!(matches!(choose(&place.mesh, None, &place.tmp), Err(TrustError::Damaged { .. })));

        fs::remove_file(&ours).unwrap();
        make(&ours).unwrap();
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o755)).unwrap();
        let error = choose(&place.mesh, None, &place.tmp).unwrap_err();
        assert!(error.to_string().contains("type `chmod 700 "), "{error}");
    }
}
