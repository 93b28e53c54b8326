//! The thread that owns all connections, and the threads that make answers. No client can end them. Only minutes of failures to accept do.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Resource as Limited, getrlimit};

use super::connection::{Connection, network};
use super::reply::Reply;
use super::routes::{self, Resource};
use super::seats::{Rarely, Seats};
use super::{Application, Limits, Listener};

/// The number of connections that are accepted before the existing ones are served again.
const ACCEPTED: usize = 1024;
/// The number of these that may be from clients for which there is no room. A crowd of reconnecting clients must not delay the others.
const LISTENED: usize = 32;
/// The number of consecutive failures (about two minutes) that end serving.
const FAILURES: u32 = 120;

impl Listener {
    /// Serves until threads cannot be started, or accepting connections keeps failing. A restart may help then.
    pub fn serve(&self, app: Arc<dyn Application>) -> io::Result<Infallible> {
        let limits = Limits { connections: self.limits.connections.min(affordable()), ..self.limits };
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, made) = channel();
        let makers = [Maker::start("scrapes", true, &app, &sender, &wake)?, Maker::start("answers", false, &app, &sender, &wake)?];
        let (seats, said) = (Seats::new(limits), Rarely::default());
        let mut serving = Serving { listener: self, limits, wake, makers, made, seats, failures: 0, said, resting: None };
        loop {
            serving.turn()?;
        }
    }
}

/// Returns half of the descriptors that this process may have, because answers need some too.
fn affordable() -> usize {
    let descriptors = getrlimit(Limited::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / 2).unwrap_or(usize::MAX)
}

struct Serving<'a> {
    listener: &'a Listener,
    limits: Limits,
    seats: Seats,
    makers: [Maker; 2],
    made: Receiver<Made>,
    wake: Arc<OwnedFd>,
    failures: u32,
    said: Rarely,
    resting: Option<Instant>,
}

impl Serving<'_> {
    fn turn(&mut self) -> io::Result<()> {
        self.seats.begin();
        let Some(ready) = self.wait()? else { return Ok(()) };
        _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        while let Ok(made) = self.made.try_recv() {
            self.give(&made);
        }
        let now = Instant::now();
        for (place, ready) in ready.into_iter().enumerate() {
            if !ready.is_empty() || self.seats.all[place].unseen() {
                self.attend(place, ready);
            }
            self.seats.all[place].check_time(now, self.limits);
        }
        self.resting = self.resting.filter(|until| *until > now);
        if self.resting.is_none() {
            self.accept()?;
        }
        for maker in &mut self.makers {
            maker.set_to_work(&self.seats)?;
        }
        Ok(())
    }

    /// Waits until something is ready or due. Returns the ready events of each connection, or `None` if they are unknown.
    fn wait(&mut self) -> io::Result<Option<Vec<PollFlags>>> {
        let due = self.seats.all.iter().filter_map(Connection::due).chain(self.resting).min();
        let left =
            due.map(|due| Timespec::try_from(due.saturating_duration_since(Instant::now()))).transpose().map_err(io::Error::other)?;
        let accepts = if self.resting.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(&self.listener.socket, accepts), PollFd::new(&*self.wake, PollFlags::IN)];
        fds.extend(self.seats.all.iter().map(|connection| PollFd::new(&connection.socket, connection.interest())));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => Ok(Some(fds[2..].iter().map(PollFd::revents).collect())),
            Err(Errno::INTR) => Ok(None),
            Err(error) => self.rest(error.into()).map(|()| None),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let mut listened = 0;
        for _ in 0..ACCEPTED {
            match self.listener.socket.accept().and_then(|(socket, client)| self.welcome(socket, network(client.ip()), &mut listened)) {
                Ok(()) => self.failures = 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_the_clients(&error) => {}
                Err(error) => return self.rest(error),
            }
        }
        Ok(())
    }

    /// Adds a new connection. If its request has arrived and is answered immediately, it needs no room.
    fn welcome(&mut self, socket: TcpStream, client: IpAddr, listened: &mut usize) -> io::Result<()> {
        if self.seats.is_full_for(client) {
            *listened += 1;
            if *listened > LISTENED {
                return Ok(());
            }
        }
        self.seats.all.push(Connection::new(socket, client, self.limits)?);
        let place = self.seats.all.len() - 1;
        self.attend(place, PollFlags::empty());
        self.seats.admit(place);
        // The next connection needs their descriptors.
        self.seats.clear();
        Ok(())
    }

    /// Usually descriptors or memory have run out. Closes a connection, which may help, or waits.
    fn rest(&mut self, error: io::Error) -> io::Result<()> {
        self.failures += 1;
        let level = if self.said.again() { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "accepting connections failed, trying again: {error}");
        if self.failures >= FAILURES {
            return Err(error);
        }
        if !self.seats.make_room(None) {
            self.resting = Some(Instant::now() + Duration::from_millis(100 * u64::from(self.failures.min(10))));
        }
        Ok(())
    }

    /// Continues a connection, and answers a complete request.
    fn attend(&mut self, place: usize, ready: PollFlags) {
        let Some(request) = self.seats.all[place].go_on(ready, self.limits) else { return };
        let reply = match routes::wanted(&request, &self.listener.names) {
            Err(reply) => reply,
            Ok(resource) if resource.is_watched() || self.seats.has_room(place) => {
                return self.seats.all[place].wait(request, resource);
            }
            Ok(_) => Reply::text(503, "too many requests at the same time"),
        };
        self.seats.all[place].give(&reply, Some(&request), self.limits);
    }

    fn give(&mut self, made: &Made) {
        if let Some(maker) = self.makers.iter_mut().find(|maker| maker.watched == made.resource.is_watched()) {
            maker.job = None;
        }
        for connection in &mut self.seats.all {
            let waits = connection.waits().filter(|(_, resource, _)| **resource == made.resource);
            let Some(request) = waits.map(|(request, ..)| request.clone()) else { continue };
            if let Some(reply) = if request.gzip { made.packed.as_ref() } else { Some(&made.plain) } {
                connection.give(reply, Some(&request), self.limits);
            }
        }
        let replies = [Some(&made.plain), made.packed.as_ref()].into_iter().flatten();
        self.seats.bound(&replies.map(|reply| &reply.body).collect::<Vec<_>>());
    }
}

/// A thread that makes answers, one after the other: either for scrapes and probes, or the others.
struct Maker {
    watched: bool,
    jobs: Sender<Resource>,
    job: Option<Resource>,
    /// Whether a client wants the answer compressed. This may become known while the answer is being made.
    packed: Arc<AtomicBool>,
}

struct Made {
    resource: Resource,
    plain: Reply,
    packed: Option<Reply>,
}

impl Maker {
    fn start(name: &str, watched: bool, app: &Arc<dyn Application>, made: &Sender<Made>, wake: &Arc<OwnedFd>) -> io::Result<Self> {
        let (jobs, received) = channel::<Resource>();
        let maker = Self { watched, jobs, job: None, packed: Arc::default() };
        let (app, made, wake, packed) = (Arc::clone(app), made.clone(), Arc::clone(wake), Arc::clone(&maker.packed));
        let work = move || {
            for resource in received {
                let begun = Instant::now();
                let plain = resource.make(&*app);
                let packed = packed.load(Ordering::Relaxed).then(|| plain.compressed().unwrap_or_else(|| plain.clone()));
                if made.send(Made { resource, plain, packed }).is_err() {
                    return;
                }
                _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
                if !watched {
                    // However many clients ask, these answers take at most half of a processor.
                    thread::sleep(begun.elapsed().min(Duration::from_secs(1)));
                }
            }
        };
        thread::Builder::new().name(name.into()).spawn(work)?;
        Ok(maker)
    }

    /// Starts the oldest request, unless the thread is busy.
    fn set_to_work(&mut self, seats: &Seats) -> io::Result<()> {
        let waiting = || seats.all.iter().filter_map(Connection::waits).filter(|(_, resource, _)| resource.is_watched() == self.watched);
        let is_idle = self.job.is_none();
        if is_idle {
            self.job = waiting().min_by_key(|(_, _, since)| *since).map(|(_, resource, _)| resource.clone());
            self.packed.store(false, Ordering::Relaxed);
        }
        let Some(job) = &self.job else { return Ok(()) };
        let wanted = waiting().any(|(request, resource, _)| request.gzip && resource == job);
        self.packed.fetch_or(wanted, Ordering::Relaxed);
        if is_idle { self.jobs.send(job.clone()).map_err(io::Error::other) } else { Ok(()) }
    }
}

/// Returns whether the connection failed before it was accepted, see accept(2).
fn is_the_clients(error: &io::Error) -> bool {
    use Errno as E;
    let over = [E::CONNABORTED, E::NETDOWN, E::PROTO, E::NOPROTOOPT, E::HOSTDOWN, E::HOSTUNREACH, E::NETUNREACH, E::INTR];
    E::from_io_error(error).is_some_and(|error| over.contains(&error))
}
