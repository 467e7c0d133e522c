//! Lists through numbered things: an item leaves from the middle at once, and nothing is allocated for it.

const NONE: u32 = u32::MAX;

/// The neighbours of each item. An item is in one [`Chain`] at a time.
#[derive(Default)]
pub(super) struct Links(Vec<(u32, u32)>);

impl Links {
    fn at(&mut self, item: u32) -> &mut (u32, u32) {
        let at = item as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, (NONE, NONE));
        }
        &mut self.0[at]
    }

    /// The one after an item of a chain.
    #[cfg(test)]
    pub(super) fn next(&self, item: u32) -> Option<u32> {
        self.0.get(item as usize).map(|link| link.1).filter(|next| *next != NONE)
    }
}

/// A list of items, in the order in which they were put at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    first: u32,
    last: u32,
    len: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self { first: NONE, last: NONE, len: 0 }
    }
}

impl Chain {
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn last(&self) -> Option<u32> {
        (self.last != NONE).then_some(self.last)
    }

    pub(super) fn push(&mut self, links: &mut Links, item: u32) {
        *links.at(item) = (self.last, NONE);
        match self.last {
            NONE => self.first = item,
            last => links.at(last).1 = item,
        }
        self.last = item;
        self.len += 1;
    }

    /// Takes out an item that is in this chain.
    pub(super) fn remove(&mut self, links: &mut Links, item: u32) {
        let (before, after) = std::mem::replace(links.at(item), (NONE, NONE));
        match before {
            NONE => self.first = after,
            before => links.at(before).1 = after,
        }
        match after {
            NONE => self.last = before,
            after => links.at(after).0 = before,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(chain: &Chain, links: &Links) -> Vec<u32> {
        std::iter::successors(chain.first(), |item| links.next(*item)).collect()
    }

    #[test]
    fn items_leave_from_everywhere_and_come_back_at_the_end() {
        let (mut links, mut chain) = (Links::default(), Chain::default());
        for item in 0..5 {
            chain.push(&mut links, item);
        }
        for item in [2, 0, 4] {
            chain.remove(&mut links, item);
        }
        assert_eq!((items(&chain, &links), chain.last()), (vec![1, 3], Some(3)));
        chain.push(&mut links, 0);
        assert_eq!((items(&chain, &links), chain.len()), (vec![1, 3, 0], 3));
        for item in [3, 0, 1] {
            chain.remove(&mut links, item);
        }
        assert_eq!((chain.first(), chain.last(), chain.len()), (None, None, 0));
    }
}
