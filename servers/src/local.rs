//! Servers from the machine's own programs.
//!
//! A server ends with its [`Process`]; and if the thread that started it ends without dropping that (a test that is
//! killed), the system ends the server (`setpriv --pdeathsig`). So start one from a thread that lives as long as the
//! server shall.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Kind, POSTGRES_VARIABLE, REDIS_VARIABLE, Server, StartError};

/// How long a server may take to answer. PostgreSQL takes a fraction of a second, on a machine that is busy a few.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a server may take to end before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);
/// Ports that are tried, should somebody else take the free one before the server does.
const PORTS_MAX: u32 = 3;
/// The password of PostgreSQL's only user.
pub const POSTGRES_PASSWORD: &str = "quark-test-password";

/// A server's process, with its folder.
pub struct Process {
    child: Option<Child>,
    command: Vec<String>,
    name: &'static str,
    port: u16,
    folder: TempDir,
}

/// Starts a PostgreSQL with a user `quark` that may do everything. It does not wait for the disk unless the settings
/// say so: what it holds is gone with it anyway. `settings` are such as `fsync=on`.
///
/// # Errors
///
/// If it is not installed or does not start.
pub fn postgres(settings: &[&str]) -> Result<Server, StartError> {
    let missing = || StartError::NotInstalled {
        program: "postgres",
        package: "postgresql",
        variable: POSTGRES_VARIABLE,
    };
    let programs = postgres_programs().ok_or_else(missing)?;
    let folder = folder()?;
    let data = folder.path().join("data");
    let password = folder.path().join("password");
    std::fs::write(&password, POSTGRES_PASSWORD).map_err(|source| system("writing a password", source))?;
    give_away(folder.path())?;
    give_away(&password)?;
    let mut make = as_nobody(&programs.join("initdb"));
    make.args(["--username=quark", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    make.arg(format!("--pwfile={}", password.display())).arg("--pgdata").arg(&data);
    let output = make.output().map_err(|source| system("starting initdb", source))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(StartError::Failed { program: "initdb".into(), output });
    }
    let server = programs.join("postgres");
    let command = |port: u16| {
        let mut command = vec![server.display().to_string(), "-D".into(), data.display().to_string()];
        let usual = ["fsync=off", "full_page_writes=off", "max_connections=200", "unix_socket_directories="];
        let own = [format!("port={port}"), "listen_addresses=127.0.0.1".into()];
        for setting in
            usual.iter().map(ToString::to_string).chain(own).chain(settings.iter().map(ToString::to_string))
        {
            command.extend(["-c".into(), setting]);
        }
        command
    };
    let address =
        |port| format!("postgres://quark:{POSTGRES_PASSWORD}@127.0.0.1:{port}/postgres?sslmode=disable");
    start("postgres", folder, command, address)
}

/// Starts a Redis. `settings` are such as `--appendonly`, `yes`.
///
/// # Errors
///
/// If it is not installed or does not start.
pub fn redis(settings: &[&str]) -> Result<Server, StartError> {
    let missing = || StartError::NotInstalled {
        program: "redis-server",
        package: "redis-server",
        variable: REDIS_VARIABLE,
    };
    let program = in_path("redis-server").ok_or_else(missing)?;
    let folder = folder()?;
    give_away(folder.path())?;
    let place = folder.path().display().to_string();
    let command = |port: u16| {
        let mut command = vec![program.display().to_string(), "--port".into(), port.to_string()];
        command.extend(["--bind", "127.0.0.1", "--dir", &place, "--save", ""].map(str::to_owned));
        command.extend(settings.iter().map(ToString::to_string));
        command
    };
    start("redis-server", folder, command, |port| format!("redis://127.0.0.1:{port}"))
}

/// Starts it on a free port.
fn start(
    name: &'static str,
    folder: TempDir,
    command: impl Fn(u16) -> Vec<String>,
    address: impl Fn(u16) -> String,
) -> Result<Server, StartError> {
    let mut process = Process { child: None, command: Vec::new(), name, port: 0, folder };
    let mut tries = 0;
    loop {
        process.port = free_port()?;
        process.command = command(process.port);
        tries += 1;
        match process.start() {
            Ok(()) => return Ok(Server { address: address(process.port), kind: Kind::Local(process) }),
            Err(_) if tries < PORTS_MAX => (),
            Err(error) => return Err(error),
        }
    }
}

impl Process {
    /// Its port on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder, with all that it holds.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process's number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it again on the same port and folder, and waits until it answers. One that runs is left alone.
    ///
    /// # Errors
    ///
    /// If it ends, or does not answer in time.
    pub fn start(&mut self) -> Result<(), StartError> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = self.folder.path().join("log");
        let file = std::fs::File::create(&log).map_err(|source| system("making a log", source))?;
        let second = file.try_clone().map_err(|source| system("making a log", source))?;
        let mut command = as_nobody(Path::new(&self.command[0]));
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(file).stderr(second);
        let child = command.current_dir(self.folder.path()).spawn();
        let mut child = child.map_err(|source| system("starting a server", source))?;
        let begin = Instant::now();
        loop {
            let ended = !matches!(child.try_wait(), Ok(None));
            if ended || begin.elapsed() > START_MAX {
                end(&mut child, "KILL");
                let output = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(StartError::Failed { program: self.name.into(), output: output.trim().into() });
            }
            if self.answers(&log) {
                self.child = Some(child);
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether it takes connections and does what they ask.
    fn answers(&self, log: &Path) -> bool {
        let says_so = |text| std::fs::read_to_string(log).is_ok_and(|log| log.contains(text));
        match self.name {
            "postgres" => says_so("database system is ready to accept connections"),
            _ => TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok(),
        }
    }

    /// Ends it in good order, without waiting for its clients, and waits until it has.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, "INT");
        }
    }

    /// Ends it at once, as a machine without power would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // PostgreSQL's own processes end at once with SIGQUIT; without it they would linger for a moment and
            // keep the next start from the folder.
            end(&mut child, if self.name == "postgres" { "QUIT" } else { "KILL" });
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal and waits; what does not heed it is killed.
fn end(child: &mut Child, signal: &str) {
    // If `kill` is missing, the process is killed below.
    let _ = Command::new("kill").args(["-s", signal, &child.id().to_string()]).stderr(Stdio::null()).status();
    let begin = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begin.elapsed() > STOP_MAX {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(LOOK);
    }
}

fn system(what: &'static str, source: io::Error) -> StartError {
    StartError::System { what, source }
}

fn folder() -> Result<TempDir, StartError> {
    let folder = tempfile::Builder::new().prefix("quark-test-").tempdir();
    folder.map_err(|source| system("making a folder", source))
}

fn free_port() -> Result<u16, StartError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(listener.map_err(|source| system("finding a free port", source))?.port())
}

/// The folder of PostgreSQL's programs: `initdb` is often not in the path, and Debian keeps it by version.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    folders.sort_by_key(|folder| version(folder));
    let in_path = in_path("initdb").and_then(|program| program.parent().map(Path::to_path_buf));
    let complete = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    folders.into_iter().rev().chain(in_path).find(complete)
}

/// The number in `/usr/lib/postgresql/15/bin`.
fn version(folder: &Path) -> u32 {
    let name = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}

/// A program that the shell would find.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// A command that ends with this thread, and is not run as root, which PostgreSQL refuses.
fn as_nobody(program: &Path) -> Command {
    let Some(setpriv) = in_path("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    if let Some((user, group)) = nobody() {
        command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
    }
    command.arg("--pdeathsig=QUIT").arg("--").arg(program);
    command
}

/// Whom a server runs as if we are root: `postgres` if that user exists, else `nobody`.
fn nobody() -> Option<(u32, u32)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    if uids.split_whitespace().nth(1) != Some("0") {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}

/// Lets whoever a server runs as have a file or folder.
///
/// # Errors
///
/// If it is not ours to give.
pub fn give_away(path: &Path) -> Result<(), StartError> {
    let Some((user, group)) = nobody() else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(user), Some(group))
        .map_err(|source| system("giving a folder away", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_postgres_is_taken() {
        assert!(
            version(Path::new("/usr/lib/postgresql/9/bin"))
                < version(Path::new("/usr/lib/postgresql/15/bin"))
        );
    }

    #[test]
    fn a_postgres_answers_ends_and_starts_again() {
        let mut server = postgres(&[]).unwrap();
        let process = server.process().unwrap();
        let port = process.port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        process.stop();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        process.start().unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        let folder = process.folder().to_owned();
        drop(server);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        assert!(!folder.exists());
    }

    #[test]
    fn a_redis_answers_and_ends() {
        let mut server = redis(&[]).unwrap();
        let port = server.process().unwrap().port();
        assert_eq!(server.address(), format!("redis://127.0.0.1:{port}"));
        drop(server);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }

    #[test]
    fn a_server_that_does_not_start_says_why() {
        let error = postgres(&["no_such_setting=1"]).unwrap_err();
        assert!(error.to_string().contains("no_such_setting"), "{error}");
    }
}
