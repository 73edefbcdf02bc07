//! One thread for everything that may take its time: checks of tracks, hooks, FIFOs. Whoever started an errand goes on at
//! once; no group's loop ever waits for one.
//!
//! ```text
//!   main ── start ──▶ thread "errands": a tokio runtime, one task an errand
//!   group ── spawn ─────▶ │  script of a track … hook … FIFO …
//!   main ◀── waker ────── ┘  a task that panics: the daemon ends, and the peer takes over
//! ```

use crate::daemon::sandbox;
use crate::sys::poll::Waker;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task;

/// A way to the thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Errands {
    runtime: Handle,
    alarm: Arc<Alarm>,
}

/// Who is told when a task has panicked.
#[derive(Debug)]
struct Alarm {
    died: AtomicBool,
    waker: Arc<Waker>,
}

/// The thread itself. What still runs when it is dropped is given up.
#[derive(Debug)]
pub struct ErrandsThread {
    errands: Errands,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ErrandsThread {
    /// Starts the thread; `waker` is woken when a task has panicked.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn start(waker: Arc<Waker>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let errands = Errands {
            runtime: runtime.handle().clone(),
            alarm: Arc::new(Alarm { died: AtomicBool::new(false), waker }),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        // An error means that the other end is gone, which is as good as a stop.
        let body = move || {
            sandbox::opens_no_link();
            drop(runtime.block_on(stopped));
        };
        let thread = std::thread::Builder::new().name("errands".into()).spawn(body)?;
        Ok(ErrandsThread { errands, stop: Some(stop), thread: Some(thread) })
    }

    /// A way to it.
    pub fn errands(&self) -> &Errands {
        &self.errands
    }

    /// Whether one of its tasks has panicked.
    pub fn died(&self) -> bool {
        self.errands.alarm.died.load(Ordering::Acquire)
    }
}

impl Drop for ErrandsThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread of the errands panicked");
        }
    }
}

impl Errands {
    /// Starts an errand.
    pub fn spawn(&self, errand: impl Future<Output = ()> + Send + 'static) -> task::JoinHandle<()> {
        let guard = TellsOfPanic(Arc::clone(&self.alarm));
        self.runtime.spawn(async move {
            let _guard = guard;
            errand.await;
        })
    }
}

/// Dropped while a task's stack unwinds, or when the task has ended.
struct TellsOfPanic(Arc<Alarm>);

impl Drop for TellsOfPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.died.store(true, Ordering::Release);
            self.0.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use std::os::fd::AsFd;
    use std::sync::mpsc;

    #[test]
    fn an_errand_that_panics_is_told_and_one_that_ends_is_not() {
        let waker = Arc::new(Waker::new().unwrap());
        let thread = ErrandsThread::start(Arc::clone(&waker)).unwrap();
        let (done, ended) = mpsc::channel();
        thread.errands().spawn(async move { done.send(()).unwrap() });
        ended.recv().unwrap();
        assert!(!thread.died());
        thread.errands().spawn(async { panic!("on purpose") });
        // Without the wake this would never return.
        poll::wait(&[waker.as_fd()], None).unwrap();
        assert!(thread.died());
    }

    #[test]
    fn what_still_runs_is_given_up_at_the_end() {
        let thread = ErrandsThread::start(Arc::new(Waker::new().unwrap())).unwrap();
        thread.errands().spawn(std::future::pending());
        drop(thread);
    }
}
