//! `cargo xtask images`: container images of the servers that tests need, from what is installed on this machine.
//!
//! No registry is asked. An image is the server's own files, the libraries that its programs are linked with, and a
//! shell: a tar archive, which the engine imports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use quark_servers::local::{self, POSTGRES_PASSWORD};

use crate::shell;

/// An image: its name, the files of the server, the programs and libraries whose libraries it needs, and what it runs.
struct Image {
    name: &'static str,
    port: u16,
    files: Vec<PathBuf>,
    linked: Vec<PathBuf>,
    command: String,
}

/// `cargo xtask images`: makes both images anew.
pub(crate) fn run() -> anyhow::Result<()> {
    if !has_engine() {
        bail!("no container engine answers; start Docker, and try `docker info`");
    }
    make(&postgres()?)?;
    make(&redis()?)
}

/// Makes the images that are missing, where an engine answers; says whether both are there then.
pub(crate) fn make_if_possible() -> bool {
    if !has_engine() {
        return false;
    }
    let made = [postgres(), redis()].into_iter().map(|image| {
        let image = image?;
        if shell::succeeds(Command::new("docker").args(["image", "inspect", image.name])) {
            return Ok(());
        }
        make(&image)
    });
    match made.collect::<anyhow::Result<()>>() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            false
        }
    }
}

/// Whether a container engine answers.
fn has_engine() -> bool {
    shell::succeeds(Command::new("docker").arg("info"))
}

fn postgres() -> anyhow::Result<Image> {
    let programs =
        local::postgres_programs().context("no PostgreSQL is installed; try `cargo xtask setup`")?;
    let home = programs.parent().context("PostgreSQL's programs are in no folder")?.to_path_buf();
    let version = home.file_name().context("PostgreSQL's folder has no name")?;
    let share = Path::new("/usr/share/postgresql").join(version);
    let mut linked = vec![PathBuf::from("/bin/sh")];
    for folder in [&programs, &home.join("lib")] {
        let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        linked.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    let bin = programs.display();
    let command = format!(
        "{bin}/initdb -D /tmp/data -U quark --auth=scram-sha-256 --pwfile=/etc/quark-password --encoding=UTF8 \
         --locale=C --no-sync && echo host all all all scram-sha-256 >>/tmp/data/pg_hba.conf && \
         exec {bin}/postgres -D /tmp/data -c 'listen_addresses=*' -c fsync=off -c unix_socket_directories= \
         -c max_connections=200"
    );
    let files = vec![home, share, "/usr/share/zoneinfo".into(), "/bin/sh".into()];
    Ok(Image { name: "quark-test-postgres", port: 5432, files, linked, command })
}

fn redis() -> anyhow::Result<Image> {
    let program = local::in_path("redis-server").context("no Redis is installed; try `cargo xtask setup`")?;
    let command =
        format!("exec {} --bind 0.0.0.0 --protected-mode no --save '' --dir /tmp", program.display());
    let files = vec![program.clone(), "/bin/sh".into()];
    Ok(Image {
        name: "quark-test-redis",
        port: 6379,
        files,
        linked: vec![program, "/bin/sh".into()],
        command,
    })
}

fn make(image: &Image) -> anyhow::Result<()> {
    let own = tempfile::tempdir().context("making a folder")?;
    std::fs::create_dir(own.path().join("etc"))?;
    std::fs::write(own.path().join("etc/passwd"), "quark:x:1000:1000::/tmp:/bin/sh\n")?;
    std::fs::write(own.path().join("etc/group"), "quark:x:1000:\n")?;
    std::fs::write(own.path().join("etc/quark-password"), POSTGRES_PASSWORD)?;
    std::fs::create_dir(own.path().join("tmp"))?;
    shell::must(Command::new("chmod").arg("1777").arg(own.path().join("tmp")))?;

    let mut files: BTreeSet<PathBuf> = image.files.iter().cloned().collect();
    files.extend(libraries(&image.linked)?);
    let mut tar = Command::new("tar");
    tar.args(["--create", "--dereference", "--file", "-", "--directory"])
        .arg(own.path())
        .args(["etc", "tmp"]);
    tar.args(["--directory", "/"]).args(files.iter().map(|file| file.strip_prefix("/").unwrap_or(file)));
    let command = serde_json::to_string(&["/bin/sh", "-c", &image.command])?;
    let mut import = Command::new("docker");
    import.arg("import").args(["--change", &format!("CMD {command}"), "--change", "USER 1000:1000"]);
    import.args(["--change", &format!("EXPOSE {}", image.port), "-", &format!("{}:latest", image.name)]);
    eprintln!("$ tar … | docker import … {}", image.name);
    let mut packing =
        tar.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cannot start `tar`")?;
    let archive = packing.stdout.take().context("tar says nothing")?;
    let imported = import.stdin(archive).stdout(Stdio::null()).status().context("cannot start `docker`")?;
    let packed = packing.wait()?;
    if !packed.success() || !imported.success() {
        bail!("the image {} was not made (tar: {packed}, docker: {imported})", image.name);
    }
    Ok(())
}

/// What the dynamic linker loads for these files. Scripts among them need nothing.
fn libraries(files: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let output = shell::ask(Command::new("ldd").args(files))?;
    Ok(libraries_in(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in lines such as `libm.so.6 => /lib/libm.so.6 (0x…)` and `/lib64/ld-linux.so.2 (0x…)`.
fn libraries_in(ldd: &str) -> Vec<PathBuf> {
    let loaded = ldd.lines().filter(|line| line.trim_end().ends_with(')'));
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    loaded.filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_linkers_list() {
        let list = "/usr/bin/x:\n\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/libm.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n/usr/bin/script:\n\tnot a dynamic executable\n";
        let expected = ["/lib/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries_in(list), expected);
    }
}
