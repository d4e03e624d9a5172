package crashfs

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// node is a file or directory, with or without a name.
type node struct {
	mode fs.FileMode // type bits

	// Of a file. Bytes in data change only while the process lives that has
	// created it, because images share them.
	data     []byte
	spans    []span // of data, from the first byte to the last
	reserved int64  // zeros at the end of data, for Append to go over
	least    int64  // certain, before the last append over durable zeros

	// Of a directory.
	names  map[string]*versions
	holder *dir          // has the lock
	free   chan struct{} // closed when holder releases it
}

// span is a run of bytes in one state, from the end of the span before it.
type span struct {
	end   int64
	state state
}

type state uint8

const (
	durable  state = iota // on disk
	dirty                 // in the cache, to be written by the next Sync
	doubtful              // in the cache, on disk or not, and no Sync will write it
)

func (s state) String() string { return [...]string{"durable", "dirty", "doubtful"}[s] }

// versions is what a name stood for since the last time this is known of the
// disk, which is the first version. The last one is what the process sees.
type versions []version

type version struct {
	node      *node  // nil: there is no such name
	seq       uint64 // when it became so
	forgotten bool   // a Sync of it has failed, and none will try again
}

func newDirectory() *node {
	return &node{mode: fs.ModeDir, names: make(map[string]*versions)}
}

// extent is how far a file was written at some time.
type extent struct{ appended, length int64 }

func (n *node) extent() extent {
	length := int64(len(n.data))
	return extent{length - n.reserved, length}
}

// append writes bytes behind those appended before, over what is reserved.
func (n *node) append(p []byte) {
	at := n.extent().appended
	if over := int64(copy(n.data[at:], p)); over > 0 {
		n.least = n.certain()
		n.turn(at, at+over, durable, dirty)
		n.turn(at, at+over, doubtful, dirty)
		n.reserved -= over
		p = p[over:]
	}
	n.grow(p)
}

// reserve adds zeros.
func (n *node) reserve(length int) {
	n.grow(make([]byte, length))
	n.reserved += int64(length)
}

func (n *node) grow(p []byte) {
	n.data = append(n.data, p...)
	n.spans = extend(n.spans, int64(len(n.data)), dirty)
}

func extend(spans []span, end int64, s state) []span {
	start, last := int64(0), len(spans)-1
	if last >= 0 {
		start = spans[last].end
	}
	switch {
	case end <= start:
		return spans
	case last >= 0 && spans[last].state == s:
		spans[last].end = end
		return spans
	}
	return append(spans, span{end, s})
}

// settle changes the state of dirty bytes that were there at some time. Those
// that were appended since, over zeros that were there, stay as they are.
func (n *node) settle(at extent, to state) {
	n.turn(0, at.appended, dirty, to)
	n.turn(n.extent().appended, at.length, dirty, to)
}

// turn changes the state of bytes between two offsets from one to another.
func (n *node) turn(low, high int64, from, to state) {
	var spans []span
	for _, s := range n.spans {
		if s.state == from {
			spans = extend(spans, min(s.end, low), from)
			spans = extend(spans, min(s.end, high), to)
		}
		spans = extend(spans, s.end, s.state)
	}
	n.spans = spans
}

// certain returns the end of the last byte that is durable, or was before
// something was appended over it: the file on disk is at least so long.
func (n *node) certain() int64 {
	for i := len(n.spans) - 1; i >= 0; i-- {
		if n.spans[i].state == durable {
			return max(n.least, n.spans[i].end)
		}
	}
	return n.least
}

// doubted reports whether some bytes may be lost.
func (n *node) doubted() bool {
	return slices.ContainsFunc(n.spans, func(s span) bool { return s.state != durable })
}

// lookup returns what the process sees under a name, or nil.
func (n *node) lookup(name string) *node {
	if v := n.names[name]; v != nil {
		return (*v)[len(*v)-1].node
	}
	return nil
}

// set changes what a name stands for.
func (n *node) set(name string, to *node, seq uint64) {
	v := n.names[name]
	if v == nil {
		v = &versions{{}} // on disk, there is none
		n.names[name] = v
	}
	*v = append(*v, version{node: to, seq: seq})
}

// syncNames makes what the names stood for at seq what they are on disk, and
// returns what is not on it any more.
func (n *node) syncNames(seq uint64) (gone []*node) {
	for _, name := range n.sorted() {
		v := n.names[name]
		last := len(*v) - 1
		for last > 0 && ((*v)[last].seq > seq || (*v)[last].forgotten) {
			last--
		}
		for _, old := range (*v)[:last] {
			if old.node != nil {
				gone = append(gone, old.node)
			}
		}
		*v = slices.Clone((*v)[last:])
		if len(*v) == 1 && (*v)[0].node == nil {
			delete(n.names, name)
		}
	}
	return gone
}

func (n *node) forgetNames(seq uint64) {
	for _, v := range n.names {
		for i := range (*v)[1:] {
			if at := &(*v)[1+i]; at.seq <= seq {
				at.forgotten = true
			}
		}
	}
}

// sorted returns the names, visible or not, in order.
func (n *node) sorted() []string { return slices.Sorted(maps.Keys(n.names)) }

func (n *node) draw(b *strings.Builder, path string) {
	for _, name := range n.sorted() {
		v := *n.names[name]
		fmt.Fprintf(b, "%s%s:", path, name)
		for i, at := range v {
			if i > 0 {
				b.WriteString(" ->")
			}
			if at.forgotten {
				b.WriteString(" (forgotten)")
			}
			at.node.drawShort(b)
		}
		b.WriteByte('\n')
		if last := v[len(v)-1].node; last != nil && last.names != nil {
			last.draw(b, path+name+"/")
		}
	}
}

func (n *node) drawShort(b *strings.Builder) {
	switch {
	case n == nil:
		b.WriteString(" none")
	case n.names != nil:
		b.WriteString(" directory")
	case n.mode != 0:
		b.WriteString(" " + n.mode.String())
	default:
		fmt.Fprintf(b, " file of %d, %d reserved", len(n.data), n.reserved)
		start := int64(0)
		for _, s := range n.spans {
			fmt.Fprintf(b, " [%d,%d) %v", start, s.end, s.state)
			start = s.end
		}
	}
}
