package crashfs

import (
	"bytes"
	"math/rand/v2"
	"slices"
)

// maxStale bounds the bytes of removed files that are kept for holes.
const maxStale = 64 << 10

// Kill ends the process and returns the disk of the next process, with the kernel
// still running: all written bytes, in the same states. It can be called again,
// and after Crash.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopLocked()
	next := New(f.seed + 1)
	next.root, next.seq, next.forget = f.root.clone(), f.seq, f.forget
	next.stale, next.note, next.capacity = f.stale, f.note, f.capacity
	return next
}

// clone copies names and states. It shares bytes: only the process that created a
// file appends to it, and that process has ended.
func (n *node) clone() *node {
	if n == nil {
		return nil
	}
	c := &node{mode: n.mode, data: n.data, spans: slices.Clone(n.spans), reserved: n.reserved, minLenBefore: n.minLenBefore}
	if n.names == nil {
		return c
	}
	c.names = make(map[string]*versions, len(n.names))
	for name, v := range n.names {
		w := slices.Clone(*v)
		for i := range w {
			w[i].node = w[i].node.clone()
		}
		c.names[name] = &w
	}
	return c
}

// Crash ends the process and returns one of the possible disks after a power cut,
// drawn with rng. It can be called again for another disk, and after Kill.
func (f *FS) Crash(rng *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopLocked()
	next := New(rng.Uint64())
	next.seq, next.forget = f.seq, f.forget
	next.stale, next.note, next.capacity = f.stale, f.note, f.capacity
	cut := &cut{rng: rng, stale: f.stale, next: next, bytes: chance(rng), names: chance(rng)}
	next.root = cut.node(f.root)
	return next
}

// Evict drops clean pages from the kernel's cache: bytes of a failed Sync then read
// as they are on disk.
func (f *FS) Evict(rng *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	cut := &cut{rng: rng, stale: f.stale, bytes: chance(rng)}
	f.root.evict(cut)
}

func (n *node) evict(cut *cut) {
	if n.names == nil {
		n.data = cut.damage(n, func(s state) bool { return s == doubtful })
		return
	}
	for _, name := range n.sorted() {
		for _, v := range *n.names[name] {
			if v.node != nil {
				v.node.evict(cut)
			}
		}
	}
}

// recycle keeps the bytes of a removed file for later holes. It drops zeros at the
// end, which would displace bytes that a reader could mistake for a record.
func (f *FS) recycle(data []byte) {
	f.stale = append(slices.Clip(f.stale), bytes.TrimRight(data, "\x00")...)
	if over := len(f.stale) - maxStale; over > 0 {
		f.stale = f.stale[over:]
	}
}

// cut is one power cut. Its chances vary, so that often all unsynced bytes survive,
// or none.
type cut struct {
	rng          *rand.Rand
	stale        []byte  // content of free blocks at the time of the cut
	next         *FS     // the image
	bytes, names float64 // probability that an unsynced sector or name survives
}

func chance(rng *rand.Rand) float64 {
	return [...]float64{0, 0.1, 0.5, 0.5, 0.5, 0.9, 1}[rng.IntN(7)]
}

func (c *cut) node(n *node) *node {
	switch {
	case n == nil:
		return nil
	case n.names == nil:
		return c.file(n)
	}
	image := newDirectory()
	for _, name := range n.sorted() {
		all := *n.names[name]
		chosen := all[c.version(len(all))].node
		if chosen != nil {
			image.names[name] = &versions{{node: c.node(chosen)}}
		}
		for _, v := range all {
			if v.node != nil && v.node != chosen {
				c.next.recycle(v.node.data)
			}
		}
	}
	return image
}

// version picks one of n versions of a name.
func (c *cut) version(n int) int {
	switch {
	case n == 1:
		return 0
	case c.rng.Float64() < c.names:
		return n - 1
	case c.rng.IntN(2) == 0:
		return 0
	}
	return c.rng.IntN(n)
}

func (c *cut) file(n *node) *node {
	image := &node{mode: n.mode, data: n.data}
	if n.mayLose() {
		image.data = c.damage(n, func(s state) bool { return s != durable })
		image.data = image.data[:c.length(n.minLen(), int64(len(image.data)))]
	}
	if len(image.data) > 0 {
		image.spans = []span{{int64(len(image.data)), durable}}
	}
	return image
}

// length picks the end of a file between the least and the most possible.
func (c *cut) length(least, most int64) int64 {
	switch c.rng.IntN(4) {
	case 0:
		return least + c.rng.Int64N(most-least+1)
	case 1:
		sector := c.sector()
		end := (least + c.rng.Int64N(most-least+1) + sector - 1) / sector * sector
		return min(end, most)
	case 2:
		if c.rng.Float64() >= c.bytes {
			return least
		}
	}
	return most
}

func (c *cut) sector() int64 {
	if c.rng.IntN(2) == 0 {
		return 512
	}
	return 4096
}

// damage returns a copy of a file's bytes. It keeps, tears or loses the sectors
// whose state may accepts.
func (c *cut) damage(n *node, may func(state) bool) []byte {
	data := slices.Clone(n.data)
	sector := c.sector()
	start := int64(0)
	for _, s := range n.spans {
		for off := start; may(s.state) && off < s.end; {
			end := min((off/sector+1)*sector, s.end)
			c.damageSector(data[off:end])
			off = end
		}
		start = s.end
	}
	return data
}

// damageSector keeps, tears or loses p: a sector, or the unsynced part of one.
func (c *cut) damageSector(p []byte) {
	if c.rng.Float64() < c.bytes {
		return
	}
	switch at := c.rng.IntN(len(p) + 1); c.rng.IntN(8) {
	case 0:
		p = p[at:]
	case 1:
		p = p[:at]
	}
	c.fill(p)
}

// fill overwrites bytes with older content of the disk: stale bytes, noise or zeros.
func (c *cut) fill(p []byte) {
	kind := c.rng.IntN(4)
	switch {
	case kind == 0 && len(c.stale) > 0:
		clear(p)
		copy(p, c.stale[c.rng.IntN(len(c.stale))/512*512:])
	case kind == 1:
		for i := 0; i < len(p); i += 8 {
			word := c.rng.Uint64()
			for j := i; j < min(i+8, len(p)); j++ {
				p[j] = byte(word)
				word >>= 8
			}
		}
	default:
		clear(p)
	}
}
