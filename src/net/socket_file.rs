//! The file of a Unix socket that listens: made where there is none or a stale one, and removed at the end.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::contained::contained;
use crate::base::shown::Shown;

/// How long to wait for other servers that start with files in the same folder.
const LOCK_TIME: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A file that this server has made. It is removed when this is dropped, unless another one has its place by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`, for those whom `mode` lets write.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AddrInUse`] where somebody listens, [`io::ErrorKind::AlreadyExists`] where something else is than a
    /// socket. Both are left alone.
    pub(crate) fn listen(path: &Path, mode: u32, backlog: u32) -> io::Result<(UnixListener, Self)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = SockAddr::unix(path)?;
        // The system would make a file whose name ends before it, or none.
        if path.as_os_str().as_bytes().contains(&0) {
            let what = "the path has a NUL in it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // Servers that start at the same time would take each other's file, not listened to yet, for a stale one.
        let lock = lock_folder(path);
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error);
            }
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        let file = Self::look_at(path, |path| fs::symlink_metadata(path))?;
        // Before it listens nobody can connect, whatever the mode is so far.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        drop(lock);
        Ok((socket.into(), file))
    }

    /// The file that was just made at `path`, known again by what `look` sees.
    ///
    /// # Errors
    ///
    /// It sees nothing: the file, which nobody would remove later, is removed.
    fn look_at(path: &Path, look: impl FnOnce(&Path) -> io::Result<Metadata>) -> io::Result<Self> {
        let found = look(path).inspect_err(|_| {
            let _ = fs::remove_file(path);
        })?;
        // The program may be in another folder by the end.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { path, identity: identity(&found) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The number is this file's as long as the socket is bound to it.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a socket that nobody listens to.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let what = "there is something that is no socket; remove it, or listen elsewhere";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where somebody listens and takes nothing, a connect would wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        Err(error) => Err(error),
    }
}

/// Keeps other servers from starting in the folder of `path` while the result is there. Where a file system cannot do
/// that, or somebody holds it for too long, there is none.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let file = File::open(folder).ok()?;
    let began = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(file),
            Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < LOCK_TIME => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let folder = Shown::value(folder.display());
                contained(|| {
                    log::warn!(
                        target: "rwf::server",
                        "another program keeps a folder locked folder={folder}: servers lock it while \
                         they start; waited {LOCK_TIME:?}, and go on without"
                    );
                });
                return None;
            }
            Err(_) => return None,
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A path in the folder for temporary files, and nothing there.
    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rwf-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
        SocketFile::listen(path, 0o600, 50)
    }

    #[test]
    fn a_stale_file_is_replaced_and_one_that_is_listened_to_is_not() {
        let path = path("stale");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("the first one listens still");
        drop(file);
        assert!(!path.exists(), "it is removed at the end");
        drop(listener);
    }

    #[test]
    fn a_listener_whose_queue_is_full_is_one_all_the_same() {
        let path = path("full");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let path = path("no-socket");
        fs::write(&path, "precious").unwrap();
        let link = path.with_extension("link");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [&path, &link] {
            let error = listen(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
            assert_eq!(fs::read(path).unwrap(), b"precious");
        }
        fs::remove_file(&link).unwrap();
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_with_a_nul_is_refused_before_a_file_is_made() {
        let path = path("nul");
        for wrong in [path.with_extension("\0b"), PathBuf::from("\0rwf-nul")] {
            let error = listen(&wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert!(!path.with_extension("").exists(), "nothing is left");
        assert!(!PathBuf::from(format!("{}.", path.display())).exists(), "nothing is left");
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_not_left_behind() {
        let path = path("unseen");
        let _listener = UnixListener::bind(&path).unwrap();
        let unseen = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        let error = SocketFile::look_at(&path, unseen).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        assert!(!path.exists(), "the file is left behind");
    }

    #[test]
    fn another_ones_file_is_left_at_the_end() {
        let path = path("other");
        let (_listener, file) = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (_other, other_file) = listen(&path).unwrap();
        drop(file);
        UnixStream::connect(&path).expect("the other one's file is still there");
        drop(other_file);
        assert!(!path.exists());
    }

    #[test]
    fn of_many_that_start_at_once_one_gets_a_stale_file() {
        let path = path("race");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let got: Vec<_> = thread::scope(|scope| {
                let starting: Vec<_> = (0..8).map(|_| scope.spawn(|| listen(&path))).collect();
                starting.into_iter().map(|starting| starting.join().unwrap()).collect()
            });
            let kinds = got.iter().filter_map(|got| got.as_ref().err()).map(io::Error::kind);
            assert!(kinds.clone().all(|kind| kind == io::ErrorKind::AddrInUse), "{got:?}");
            assert_eq!(kinds.count(), 7, "{got:?}");
            UnixStream::connect(&path).expect("the one that got it listens");
        }
    }

    #[test]
    fn the_mode_is_as_it_is_set_whatever_the_process_masks() {
        let path = path("mode");
        for mode in [0o600, 0o660, 0o777, 0] {
            let (_listener, _file) = SocketFile::listen(&path, mode, 5).unwrap();
            let found = fs::symlink_metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode, "{found:o}");
        }
    }
}
