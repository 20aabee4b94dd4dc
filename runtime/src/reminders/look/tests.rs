use super::super::held::Bounds;
use super::*;
use crate::store::{Address, ReminderRecord};

const TODAY: Timestamp = Timestamp::VIRTUAL_ORIGIN;
const NOW: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn all() -> Vec<RingRange> {
    vec![RingRange::ALL]
}

fn brought(read: usize, taken: usize, next: Option<u64>) -> Brought {
    Brought { read, taken, next: next.map(|due| DuePlace::before(Timestamp(due))) }
}

struct Test {
    looks: Looks,
    held: Held,
    seconds: u32,
}

impl Test {
    fn new() -> Self {
        Self { looks: Looks::new(NOW, TODAY), held: Held::default(), seconds: 0 }
    }

    fn now(&self) -> Duration {
        NOW + SECOND * self.seconds
    }

    fn today(&self) -> Timestamp {
        TODAY.saturating_add(SECOND * self.seconds)
    }

    fn page_of(&mut self, owned: Vec<RingRange>) -> Option<Page> {
        let (today, now) = (self.today(), self.now());
        self.looks.next_page(&mut self.held, || owned, today, now)
    }

    fn page(&mut self) -> Option<Page> {
        self.page_of(all())
    }

    fn read(&mut self, page: &Page, brought: Brought) {
        let now = self.now();
        self.looks.read(&mut self.held, page.which, brought, now);
    }

    /// Reads all that is to be read now, of which there is nothing.
    fn read_nothing(&mut self) -> Vec<Which> {
        let mut read = Vec::new();
        while let Some(page) = self.page() {
            self.read(&page, brought(0, 0, None));
            read.push(page.which);
        }
        read
    }
}

#[test]
fn each_look_reads_what_is_due_soon_and_then_what_is_late() {
    let mut test = Test::new();
    let soon = test.page().unwrap();
    assert_eq!((soon.which, soon.until), (Which::Soon, TODAY.saturating_add(HORIZON)));
    assert_eq!(soon.after, DuePlace::before(TODAY.saturating_sub(HORIZON)));
    test.read(&soon, brought(3, 3, None));
    let late = test.page().unwrap();
    assert_eq!((late.which, late.after.clone(), late.until), (Which::Late, DuePlace::START, TODAY));
    test.read(&late, brought(0, 0, None));
    assert_eq!(test.page(), None);
    assert_eq!(test.looks.next(&test.held), NOW + LOOK_EVERY);
    test.seconds = 1;
    assert_eq!(test.read_nothing(), [Which::Soon, Which::Late]);
}

#[test]
fn what_is_due_soon_does_not_wait_for_a_long_way_through_what_is_late() {
    let mut test = Test::new();
    let soon = test.page().unwrap();
    test.read(&soon, brought(0, 0, None));
    for place in 1..5 {
        let late = test.page().unwrap();
        assert_eq!(late.which, Which::Late);
        test.read(&late, brought(PAGE, PAGE, Some(place)));
    }
    test.seconds = 1;
    let soon = test.page().unwrap();
    assert_eq!(soon.which, Which::Soon);
    test.read(&soon, brought(0, 0, None));
    let late = test.page().unwrap();
    assert_eq!((late.which, late.after), (Which::Late, DuePlace::before(Timestamp(4))));
}

#[test]
fn a_page_of_what_waits_to_be_tried_again_is_not_followed_at_once() {
    let mut test = Test::new();
    let soon = test.page().unwrap();
    test.read(&soon, brought(0, 0, None));
    let late = test.page().unwrap();
    test.read(&late, brought(PAGE, 1, Some(1)));
    assert_eq!(test.page(), None);
    test.seconds = 1;
    let soon = test.page().unwrap();
    test.read(&soon, brought(0, 0, None));
    assert_eq!(test.page().unwrap().after, DuePlace::before(Timestamp(1)));
}

#[test]
fn after_an_outage_what_came_due_meanwhile_is_read_with_what_is_due_soon() {
    let mut test = Test::new();
    test.read_nothing();
    test.seconds = 1;
    assert_eq!(test.page().unwrap().which, Which::Soon);
    test.looks.failed(Which::Soon);
    test.seconds = 60;
    let soon = test.page().unwrap();
    assert_eq!(soon.after, DuePlace::before(TODAY.saturating_add(HORIZON)));
    assert_eq!(soon.until, test.today().saturating_add(HORIZON));
    test.read(&soon, brought(0, 0, None));
    test.seconds = 61;
    assert_eq!(test.page().unwrap().after, DuePlace::before(test.today().saturating_sub(HORIZON)));
}

#[test]
fn each_owned_part_is_read_and_one_that_is_new_from_its_beginning() {
    let mut test = Test::new();
    let parts = [RingRange { first: 0, last: 9 }, RingRange { first: 20, last: 29 }];
    assert_eq!(test.page_of(Vec::new()), None);
    test.seconds = 1;
    for part in parts {
        let page = test.page_of(parts.into()).unwrap();
        assert_eq!((page.which, page.range), (Which::Soon, part));
        test.read(&page, brought(0, 0, None));
    }
    let page = test.page_of(parts.into()).unwrap();
    assert_eq!((page.which, page.range), (Which::Late, parts[0]));
    test.read(&page, brought(PAGE, PAGE, Some(7)));
    let page = test.page_of(parts.into()).unwrap();
    assert_eq!((page.range, page.after.due), (parts[0], Timestamp(7)));
    test.read(&page, brought(PAGE, PAGE, Some(8)));
    let page = test.page_of(all()).unwrap();
    assert_eq!((page.range, page.after), (RingRange::ALL, DuePlace::START));
}

#[test]
fn what_finds_no_room_is_left_until_there_is_some() {
    let mut test = Test::new();
    test.held = Held::new(Bounds { held: 2, ..Bounds::DEFAULT });
    let record = |key: u64| ReminderRecord {
        actor: Address::new("t", key.to_string()),
        name: "r".into(),
        due: TODAY.saturating_add(SECOND),
        schedule: String::new(),
        ring: key,
        version: 1,
    };
    let soon = test.page().unwrap();
    test.held.end_page((0..3).map(record).collect(), TODAY, NOW);
    test.read(&soon, brought(3, 2, Some(1)));
    assert_eq!(test.page(), None);
    assert_eq!(test.looks.next(&test.held), NOW + LOOK_EVERY);
    // The others are found when they are late.
    test.held.forget_waiting();
    assert_eq!(test.page().unwrap().which, Which::Late);
}

#[test]
fn what_changed_is_looked_for_at_once() {
    let mut test = Test::new();
    test.read_nothing();
    assert_eq!(test.page(), None);
    test.looks.again(NOW);
    assert_eq!(test.read_nothing(), [Which::Soon, Which::Late]);
}
