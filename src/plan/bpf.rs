//! Seccomp verdicts -> a classic BPF program, the only language that seccomp(2) takes.
//!
//! Run by the parent. Per architecture the whole space of system call numbers is cut into ranges of
//! one verdict, and the program finds the range by binary search: the kernel runs the program once
//! for every number when it is loaded (to remember which ones are always allowed), so short paths
//! make a container start faster. Pure: knows neither names nor the spec, which is `seccomp`'s part.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use crate::sys::seccomp::Instruction;

/// What becomes of the system calls that the kernel reports with one AUDIT_ARCH_ value.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    pub audit: u32,
    /// Ascending; the first one begins at 0.
    pub ranges: Vec<Range>,
}

/// The numbers from `first` up to the next range.
#[derive(Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u32,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Return(u32),
    /// The first rule whose tests all hold decides.
    Rules {
        rules: Vec<Rule>,
        otherwise: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub tests: Vec<Test>,
    pub action: u32,
}

/// Compares `argument & mask` with `value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    pub index: u8,
    pub compare: Compare,
    pub negated: bool,
    pub mask: u64,
    pub value: u64,
    /// Whether the upper half of the argument counts.
    pub wide: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
}

/// One program for all sections, tried in their order; an architecture without a section gets `foreign`.
pub fn program(sections: &[Section], foreign: u32) -> Result<Vec<Instruction>> {
    let mut graph = Graph::default();
    let mut trees: Vec<usize> = Vec::new();
    let mut dispatch = graph.give(foreign);
    // From the last to the first: the first section ends up at the head of the program, where it is
    // reached without long jumps.
    for (done, section) in sections.iter().rev().enumerate() {
        let twin = sections[sections.len() - done..]
            .iter()
            .rev()
            .position(|later| later.ranges == section.ranges);
        let tree = match twin {
            Some(twin) => trees[twin],
            None => graph.section(&section.ranges),
        };
        trees.push(tree);
        dispatch = graph.jump(JEQ, section.audit, tree, dispatch);
    }
    let root = graph.add(Node::Load {
        offset: ARCH,
        next: dispatch,
    });
    let program = assemble(&graph.nodes, root);
    ensure!(
        program.len() <= libc::BPF_MAXINSNS as usize,
        "the filter needs {} instructions, the kernel takes {} at most; name fewer syscalls, arguments or architectures",
        program.len(),
        libc::BPF_MAXINSNS
    );
    Ok(program)
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGT: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`: nr, arch, instruction_pointer, args[6].
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A step of the program. A node only points to nodes that were added before it.
enum Node {
    Return(u32),
    Load {
        offset: u32,
        next: usize,
    },
    And {
        mask: u32,
        next: usize,
    },
    Jump {
        code: u16,
        k: u32,
        yes: usize,
        no: usize,
    },
}

#[derive(Default)]
struct Graph<'a> {
    nodes: Vec<Node>,
    returns: Vec<(u32, usize)>,
    rules: HashMap<&'a Verdict, usize>,
}

impl<'a> Graph<'a> {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn jump(&mut self, code: u16, k: u32, yes: usize, no: usize) -> usize {
        self.add(Node::Jump { code, k, yes, no })
    }

    fn give(&mut self, value: u32) -> usize {
        if let Some((_, node)) = self.returns.iter().find(|(known, _)| *known == value) {
            return *node;
        }
        let node = self.add(Node::Return(value));
        self.returns.push((value, node));
        node
    }

    fn section(&mut self, ranges: &'a [Range]) -> usize {
        let tree = self.tree(ranges);
        self.add(Node::Load {
            offset: NUMBER,
            next: tree,
        })
    }

    /// Binary search, with the number loaded.
    fn tree(&mut self, ranges: &'a [Range]) -> usize {
        if let [before, hole, after] = ranges
            && before.verdict == after.verdict
            && after.first - hole.first == 1
        {
            let outside = self.verdict(&before.verdict);
            let inside = self.verdict(&hole.verdict);
            return self.jump(JEQ, hole.first, inside, outside);
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        if low.is_empty() {
            return self.verdict(&high[0].verdict);
        }
        let above = self.tree(high);
        let below = self.tree(low);
        self.jump(JGE, high[0].first, above, below)
    }

    fn verdict(&mut self, verdict: &'a Verdict) -> usize {
        let (rules, otherwise) = match verdict {
            Verdict::Return(value) => return self.give(*value),
            Verdict::Rules { rules, otherwise } => (rules, *otherwise),
        };
        if let Some(node) = self.rules.get(verdict) {
            return *node;
        }
        let mut node = self.give(otherwise);
        for rule in rules.iter().rev() {
            node = self.rule(rule, node);
        }
        self.rules.insert(verdict, node);
        node
    }

    fn rule(&mut self, rule: &Rule, otherwise: usize) -> usize {
        let mut node = self.give(rule.action);
        for test in rule.tests.iter().rev() {
            node = self.test(test, node, otherwise);
        }
        node
    }

    fn test(&mut self, test: &Test, yes: usize, no: usize) -> usize {
        let (yes, no) = if test.negated { (no, yes) } else { (yes, no) };
        let low = Half::low(test);
        let high = Half::high(test);
        let code = match test.compare {
            Compare::Equal => JEQ,
            Compare::Greater => JGT,
            Compare::GreaterOrEqual => JGE,
        };
        let below = match low.mask {
            0 => yes,
            _ => self.compare(&low, code, yes, no),
        };
        match test.compare {
            _ if high.mask == 0 => below,
            Compare::Equal => self.compare(&high, JEQ, below, no),
            Compare::Greater | Compare::GreaterOrEqual => {
                // The upper halves decide unless they are equal.
                let no = self.with_loaded(&high, no);
                let equal = self.jump(JEQ, high.value, below, no);
                self.compare(&high, JGT, yes, equal)
            }
        }
    }

    /// Loads one half of an argument and compares it.
    fn compare(&mut self, half: &Half, code: u16, yes: usize, no: usize) -> usize {
        let yes = self.with_loaded(half, yes);
        let no = self.with_loaded(half, no);
        let mut node = self.jump(code, half.value, yes, no);
        if half.mask != u32::MAX {
            node = self.add(Node::And {
                mask: half.mask,
                next: node,
            });
        }
        self.add(Node::Load {
            offset: half.offset,
            next: node,
        })
    }

    /// Where to enter `node` when the half is in the accumulator already.
    fn with_loaded(&self, half: &Half, node: usize) -> usize {
        match self.nodes[node] {
            Node::Load { offset, next } if offset == half.offset && half.mask == u32::MAX => next,
            _ => node,
        }
    }
}

/// The 32 bits of an argument that one load can see.
struct Half {
    offset: u32,
    mask: u32,
    value: u32,
}

impl Half {
    fn low(test: &Test) -> Half {
        let offset = ARGUMENTS + 8 * u32::from(test.index);
        let lower = if cfg!(target_endian = "big") { 4 } else { 0 };
        Half {
            offset: offset + lower,
            mask: test.mask as u32,
            value: test.value as u32,
        }
    }

    /// With an empty mask if the upper half does not count.
    fn high(test: &Test) -> Half {
        let Half { offset, .. } = Half::low(test);
        let mask = if test.wide {
            (test.mask >> 32) as u32
        } else {
            0
        };
        Half {
            offset: offset ^ 4,
            mask,
            value: (test.value >> 32) as u32,
        }
    }
}

/// Lays the nodes out, last instruction first: jumps only go forward, so every target has its place
/// before the jump to it is written.
fn assemble(nodes: &[Node], root: usize) -> Vec<Instruction> {
    let used = reachable(nodes, root);
    let mut layout = Layout {
        reversed: Vec::new(),
        places: vec![Place::default(); nodes.len()],
    };
    for (id, node) in nodes.iter().enumerate().filter(|(id, _)| used[*id]) {
        match *node {
            Node::Return(value) => layout.push(RETURN, value),
            Node::Load { offset, next } => layout.push_before(next, LOAD, offset),
            Node::And { mask, next } => layout.push_before(next, AND, mask),
            Node::Jump { code, k, yes, no } => layout.push_jump(code, k, yes, no),
        }
        let top = layout.reversed.len() - 1;
        layout.places[id] = Place {
            home: top,
            near: top,
        };
    }
    layout.reversed.reverse();
    layout.reversed
}

/// Shortcuts past a load can leave nodes that nothing enters.
fn reachable(nodes: &[Node], root: usize) -> Vec<bool> {
    let mut used = vec![false; nodes.len()];
    used[root] = true;
    for id in (0..=root).rev() {
        if !used[id] {
            continue;
        }
        match nodes[id] {
            Node::Return(_) => {}
            Node::Load { next, .. } | Node::And { next, .. } => used[next] = true,
            Node::Jump { yes, no, .. } => {
                used[yes] = true;
                used[no] = true;
            }
        }
    }
    used
}

/// Where a node stands, counted from the program's end, and the last stand-in for it.
#[derive(Clone, Copy, Default)]
struct Place {
    home: usize,
    near: usize,
}

struct Layout {
    reversed: Vec<Instruction>,
    places: Vec<Place>,
}

impl Layout {
    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(Instruction {
            code,
            jt: 0,
            jf: 0,
            k,
        });
    }

    /// An instruction that goes on with `next`, which mostly stands right there.
    fn push_before(&mut self, next: usize, code: u16, k: u32) {
        if self.places[next].home + 1 != self.reversed.len() {
            self.stand_in(next);
        }
        self.push(code, k);
    }

    fn push_jump(&mut self, code: u16, k: u32, yes: usize, no: usize) {
        self.bring_near(yes);
        self.bring_near(no);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.reversed.push(Instruction { code, jt, jf, k });
    }

    fn distance(&self, target: usize) -> usize {
        self.reversed.len() - self.places[target].near - 1
    }

    /// A conditional jump reaches 255 instructions; one more may come between, for its other target.
    fn bring_near(&mut self, target: usize) {
        if self.distance(target) > 254 {
            self.stand_in(target);
        }
    }

    /// A copy of a return, or a long jump to what cannot be copied.
    fn stand_in(&mut self, target: usize) {
        let home = self.places[target].home;
        match self.reversed[home] {
            Instruction {
                code: RETURN, k, ..
            } => self.push(RETURN, k),
            _ => self.push(JUMP, (self.reversed.len() - home - 1) as u32),
        }
        self.places[target].near = self.reversed.len() - 1;
    }
}
