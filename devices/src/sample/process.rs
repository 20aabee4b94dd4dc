//! What this process holds of main memory, through sysinfo.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use quark_base::ByteSize;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

use crate::inventory::{Note, Source};

/// Reads this process's resident memory.
pub struct ProcessMemory {
    pid: Pid,
    system: Mutex<System>,
}

impl ProcessMemory {
    /// Looks up the process.
    ///
    /// # Errors
    /// [`Note`], when the system does not tell a process about itself.
    pub fn open() -> Result<Self, Note> {
        let broken = |error: &dyn fmt::Display| {
            Note::broken(Source::Procfs, format!("the process's memory cannot be read: {error}"))
        };
        let pid = get_current_pid().map_err(|error| broken(&error))?;
        let system = System::new().map_err(|error| broken(&error))?;
        Ok(Self { pid, system: Mutex::new(system) })
    }

    /// The resident set; `None` if the system does not tell.
    pub fn read(&self) -> Option<ByteSize> {
        // A panic elsewhere leaves the readings whole: each is taken anew.
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let memory_only = ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, memory_only);
        system.process(self.pid).map(|process| ByteSize::bytes(process.memory()))
    }
}

impl fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessMemory").field("pid", &self.pid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_takes_memory_holds_more_of_it() {
        let memory = ProcessMemory::open().unwrap();
        let before = memory.read().unwrap();
        let taken = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = memory.read().unwrap();
        assert!(after.as_u64() >= before.as_u64() + (32 << 20), "{before} -> {after}");
        drop(taken);
    }
}
