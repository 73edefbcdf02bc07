//! What happens: traffic, and one mishap after the other; then the calm in which all must heal, and the quiet in which
//! nothing may be said but ADVERTs.

use super::climate::Weather;
use super::world::{Dump, World};
use super::*;
use crate::flow::{Attributes, attribute};
use crate::wire::Kind;

/// Every third key is of IPv6.
fn storm_key(number: u32) -> FlowKey {
    let key = key(number);
    let wide = |address| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        wide => wide,
    };
    if number % 3 == 1 { FlowKey { source: wide(key.source), destination: wide(key.destination), ..key } } else { key }
}

/// Blocks of the annex that a flow of the storm needs at most.
fn blocks(flow: &Flow) -> u32 {
    let attributes = flow.attributes.as_bytes().len() as u32;
    if flow.key.source.is_ipv4() && attributes == 0 { 0 } else { (40 + attributes).div_ceil(60) }
}

impl World<'_> {
    pub(super) fn storm(&mut self) {
        let interval = self.climate.interval;
        self.pass(interval * 8);
        for _ in 0..self.climate.mishaps {
            self.mishap();
            let time = interval.mul_f64(self.dice.pick(&[0.02, 0.5, 1.0, 3.0, 6.0]));
            let time = self.dice.part(time);
            self.pass(time);
        }
    }

    /// Everything works from now on: within the bound there is one master, and all others have proven that they are equal.
    pub(super) fn calm(&mut self) {
        self.note("calm".into());
        self.weather = Weather::FAIR;
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        let now = self.now;
        for seat in &mut self.seats {
            (seat.commits, seat.spoken) = (true, true);
            seat.stalled_until = seat.stalled_until.map(|_| now);
            seat.restarts_at = seat.restarts_at.map(|_| now).or_else(|| seat.engine.is_none().then_some(now));
        }
        self.pass(Duration::from_millis(1));
        (0..self.seats.len()).for_each(|at| self.set_link(at, true));
        self.appoint();
        self.pass(self.climate.interval * 3);
        let start = self.now;
        // A cold master gives way to a warm backup, which an owner who decides may keep from taking the role.
        let manual = self.seats.iter().any(|seat| seat.config.role == RoleMode::Manual);
        let hold = if manual { self.climate.interval * 30 } else { Duration::ZERO };
        let bound = Duration::from_secs(5) + self.climate.interval * 20 + hold;
        // Settled is what stays so: a node that may take the role from another waits for its turn.
        let mut stood = 0;
        while stood < 2 * (self.seats.len() + 1) {
            self.make_room();
            self.run_to(self.now + self.climate.interval / 2);
            stood += 1;
            match self.settled() {
                Ok(()) => {}
                Err(why) => {
                    assert!(self.now.since(start) < bound, "not settled after {bound:?}: {why}");
                    stood = 0;
                }
            }
        }
        self.note(format!("settled after {:?}", self.now.since(start)));
        self.check_all_equal();
    }

    /// Nothing has to be said any more but "I am here".
    pub(super) fn quiet(&mut self) {
        self.forget_late_copies();
        self.run_to(self.now + self.climate.interval * 2 + Duration::from_millis(20));
        self.sent = [0; 8];
        let span = self.climate.interval * 12;
        self.run_to(self.now + span);
        let adverts: u64 =
            self.seats.iter().map(|seat| (span.as_nanos() / seat.config.advert_interval.as_nanos()) as u64 + 2).sum();
        let sent = self.sent[usize::from(Kind::ADVERT.0)];
        assert!(sent <= adverts, "{sent} ADVERTs in quiet, {adverts} expected");
        let others: u64 = self.sent.iter().sum::<u64>() - sent;
        assert_eq!(others, 0, "not quiet: {:?}", self.sent);
        self.check_all_equal();
        assert!(self.settled().is_ok());
    }

    // ------------------------------------------------------------------ traffic

    /// Time with a little traffic.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let gap = self
            .dice
            .pick(&[time / 3, self.climate.interval / 4, self.climate.interval / 20])
            .max(Duration::from_micros(200));
        while self.now < end {
            self.run_to((self.now + gap).min(end));
            for at in self.masters() {
                for _ in 0..self.dice.between(0, 3) {
                    self.change(at);
                }
            }
        }
    }

    fn burst(&mut self) {
        let count = self.dice.between(1, self.climate.burst);
        for at in self.masters() {
            for _ in 0..count {
                self.change(at);
            }
        }
    }

    /// A random change on node `at`.
    fn change(&mut self, at: usize) {
        let number = self.dice.roll(u64::from(self.climate.keys)) as u32;
        let change = if self.dice.chance(350) {
            Change::Delete(storm_key(number))
        } else {
            let value = self.dice.roll(1 << 20) as u32;
            let base = Flow { key: storm_key(number), ..flow(number) };
            let plain = Flow { reply_source: None, tcp: None, ..base.clone() };
            let translated = base.key.source.is_ipv4() && !number.is_multiple_of(3);
            let flow = if translated { base } else { plain };
            let attributes = self.attributes();
            Change::Upsert(Flow { mark: value, timeout: self.dice.pick(&[1, 30, 600, 432_000]), attributes, ..flow })
        };
        self.apply(at, &change);
    }

    /// Mostly none; sometimes more than a small table's annex holds many of.
    fn attributes(&mut self) -> Attributes {
        let mut attributes = Attributes::NONE;
        let kinds: &[(u8, usize)] = match self.dice.roll(20) {
            0..=12 => &[],
            13 | 14 => &[(attribute::HELPER, 3)],
            15 => &[(attribute::COUNTERS, 32)],
            16 | 17 => &[(attribute::SEQUENCE_ADJUSTMENT, 24), (attribute::LABELS, 16)],
            18 => &[(attribute::LABELS, 16), (attribute::COUNTERS, 32), (attribute::START, 8)],
            _ => &[(attribute::EXPECTATIONS, 255), (attribute::PROTOCOL, 255)],
        };
        for &(kind, len) in kinds {
            let filled = self.dice.roll(256) as u8;
            attributes.set(kind, &vec![filled; len]).unwrap();
        }
        attributes
    }

    fn apply(&mut self, at: usize, change: &Change) {
        let now = self.now;
        // What happens on a cold master is lost when a warm node takes the role from it.
        let alone = self.masters() == [at] && self.engine(at).is_some_and(|engine| !engine.cold);
        let seat = &mut self.seats[at];
        let Some(engine) = &mut seat.engine else { return };
        seat.spoken = true;
        let key = *change.key();
        if engine.update(now, change).is_err() {
            return;
        }
        let believed = match change {
            Change::Upsert(flow) => {
                let flow = flow.clone().canonical();
                seat.kernel.insert(key, flow.clone());
                Some(flow)
            }
            Change::Delete(_) => {
                seat.kernel.remove(&key);
                None
            }
        };
        // What the source says is newer than what waits to be written.
        seat.hand.retain(|waiting| *waiting.key() != key);
        self.changed_at.insert(key, now);
        if alone {
            self.truth.insert(key, believed);
        } else {
            self.truth.remove(&key);
        }
    }

    /// A mastership changes hands: what changed shortly before may have died with the old one.
    pub(super) fn doubt_recent_changes(&mut self) {
        let recent = self.now.since(Instant::ZERO).saturating_sub(self.climate.interval * 3);
        let recent = Instant::ZERO + recent;
        let changed_at = &self.changed_at;
        self.truth.retain(|key, _| changed_at[key] < recent);
    }

    /// A node dies or leaves: what no survivor in sync holds as the traffic knows it is in doubt. Whether there is one.
    fn survivors_hold(&mut self, victim: usize) -> bool {
        let is_warm = |at: &usize| {
            let engine = self.seats[*at].engine.as_ref();
            *at != victim
                && engine
                    .is_some_and(|engine| engine.sync_state() == SyncState::InSync || engine.role() == Role::Master)
        };
        let survivors: Vec<usize> = (0..self.seats.len()).filter(is_warm).collect();
        if survivors.is_empty() {
            return false;
        }
        let now = self.now;
        let seats = &self.seats;
        self.truth.retain(|key, believed| {
            survivors.iter().all(|at| {
                let held = seats[*at].engine.as_ref().and_then(|engine| engine.table.get(key, now));
                held.map(|flow| flow.mark) == believed.as_ref().map(|flow| flow.mark)
            })
        });
        true
    }

    /// Deletes on the master until everybody's table has room.
    fn make_room(&mut self) {
        let room = self.seats.iter().map(|seat| seat.config.capacity).min().unwrap_or(0) as usize / 2;
        let annex = self.seats.iter().filter_map(|seat| seat.engine.as_ref()).map(|engine| engine.table.annex_blocks());
        let annex = annex.min().unwrap_or(0) / 2;
        for at in self.masters() {
            let now = self.now;
            let Some(engine) = self.engine(at) else { continue };
            let mut used = 0;
            let too_many = |(nth, flow): &(usize, Flow)| {
                used += blocks(flow);
                *nth >= room || used > annex
            };
            let keys: Vec<FlowKey> = engine.flows(now).enumerate().filter(too_many).map(|(_, flow)| flow.key).collect();
            for key in keys {
                self.apply(at, &Change::Delete(key));
            }
        }
    }

    // ------------------------------------------------------------------ mishaps

    fn mishap(&mut self) {
        let nodes = self.seats.len() as u64;
        let at = self.dice.roll(nodes) as usize;
        if self.climate.gentle {
            match self.dice.roll(10) {
                0 | 1 => self.burst(),
                2 => self.weather = self.climate.weather(&mut self.dice),
                3..=5 => self.machine_dies(at),
                6 => self.leaves(at),
                7 => self.sink_stops_or_goes_on(at),
                8 => self.priority(at),
                _ => self.pass(self.climate.interval * 4),
            }
            return;
        }
        match self.dice.roll(20) {
            0..=3 => self.burst(),
            4 | 5 => self.weather = self.climate.weather(&mut self.dice),
            6 => self.machine_dies(at),
            7 | 8 => self.stalls(at),
            9 => self.leaves(at),
            10 => self.sink_stops_or_goes_on(at),
            11 => {
                let up = !self.seats[at].link;
                self.set_link(at, up);
            }
            12 | 13 => self.cut_or_heal(),
            14 => self.heal(),
            15 => self.priority(at),
            16 => self.owner_wishes(at),
            17 => self.source_overruns(at),
            _ => self.pass(self.climate.interval * 4),
        }
    }

    fn machine_dies(&mut self, at: usize) {
        if !self.survivors_hold(at) && self.climate.gentle {
            return;
        }
        let span = self.climate.interval.mul_f64(self.dice.pick(&[0.01, 0.5, 2.0, 8.0]));
        let restarts_at = self.now + self.dice.part(span);
        if self.seats[at].engine.is_some() {
            self.kill(at, restarts_at);
        }
    }

    fn leaves(&mut self, at: usize) {
        if !self.survivors_hold(at) && self.climate.gentle {
            return;
        }
        let now = self.now;
        let seat = &mut self.seats[at];
        if let Some(engine) = seat.engine.as_mut().filter(|_| seat.stalled_until.is_none()) {
            engine.leave(now);
            seat.spoken = true;
            self.note(format!("node {} leaves", at + 1));
            self.run_to(now + Duration::from_millis(2));
            let restarts_at = self.now + self.dice.part(self.climate.interval * 6);
            self.kill(at, restarts_at);
        }
    }

    fn stalls(&mut self, at: usize) {
        let span = self.climate.interval.mul_f64(self.dice.pick(&[1.0, 4.0, 8.0, 50.0]));
        let until = self.now + self.dice.part(span);
        if self.seats[at].engine.is_some() {
            self.seats[at].stalled_until = Some(until);
            self.note(format!("node {} stalls until {until:?}", at + 1));
        }
    }

    fn sink_stops_or_goes_on(&mut self, at: usize) {
        self.seats[at].commits ^= true;
        self.seats[at].spoken = true;
        self.note(format!("sink of node {}: {}", at + 1, self.seats[at].commits));
    }

    fn set_link(&mut self, at: usize, up: bool) {
        let now = self.now;
        let seat = &mut self.seats[at];
        if seat.link != up && seat.stalled_until.is_none() {
            seat.link = up;
            seat.spoken = true;
            if let Some(engine) = &mut seat.engine {
                engine.handle_link(now, up);
            }
            self.note(format!("link of node {}: {up}", at + 1));
        }
    }

    fn cut_or_heal(&mut self) {
        let nodes = self.seats.len() as u64;
        match self.dice.roll(3) {
            0 => {
                let (from, to) = (self.dice.roll(nodes) as usize, self.dice.roll(nodes) as usize);
                self.cut[from][to] ^= true;
            }
            1 => {
                let alone = self.dice.roll(nodes) as usize;
                for other in 0..self.seats.len() {
                    self.cut[alone][other] = true;
                    self.cut[other][alone] = true;
                }
            }
            _ => {
                let group = self.dice.roll(1 << nodes);
                for from in 0..self.seats.len() {
                    for to in 0..self.seats.len() {
                        self.cut[from][to] = (group >> from) & 1 != (group >> to) & 1;
                    }
                }
            }
        }
        self.note(format!("cut: {:?}", self.cut));
    }

    fn heal(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.note("healed".into());
    }

    fn priority(&mut self, at: usize) {
        let (now, priority) = (self.now, self.dice.between(1, 255) as u8);
        let seat = &mut self.seats[at];
        if let Some(engine) = seat.engine.as_mut().filter(|_| seat.stalled_until.is_none()) {
            engine.set_priority(now, priority).unwrap();
            seat.spoken = true;
        }
    }

    fn owner_wishes(&mut self, at: usize) {
        let wish = self.dice.pick(&[RoleRequest::Master, RoleRequest::Backup, RoleRequest::None]);
        self.wish(at, wish);
    }

    fn wish(&mut self, at: usize, wish: RoleRequest) {
        let now = self.now;
        let seat = &mut self.seats[at];
        if let Some(engine) = seat.engine.as_mut().filter(|_| seat.stalled_until.is_none()) {
            engine.set_role(now, wish);
            seat.spoken = true;
            self.note(format!("owner of node {} wishes {wish:?}", at + 1));
        }
    }

    fn source_overruns(&mut self, at: usize) {
        if self.masters().contains(&at) {
            let now = self.now;
            let seat = &mut self.seats[at];
            if let Some(engine) = &mut seat.engine {
                engine.source_overrun(now);
                (seat.dump, seat.spoken) = (Dump::Wanted, true);
            }
        }
    }

    /// Nobody is out of the game by request; where no node elects itself, the owner names one.
    fn appoint(&mut self) {
        for at in 0..self.seats.len() {
            if self.engine(at).is_some_and(|engine| engine.role() == Role::None) {
                self.wish(at, RoleRequest::Backup);
            }
        }
        let manual: Vec<usize> =
            (0..self.seats.len()).filter(|at| self.seats[*at].config.role == RoleMode::Manual).collect();
        if manual.len() == self.seats.len() {
            let chosen = self.dice.pick(&manual);
            for at in manual {
                self.wish(at, if at == chosen { RoleRequest::Master } else { RoleRequest::Backup });
            }
        }
    }
}
