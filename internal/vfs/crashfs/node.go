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

	// Fields of a file. Images share data, so only the process that created the
	// file changes its bytes.
	data         []byte
	spans        []span // states of data, from the first byte to the last
	reserved     int64  // number of zeros at the end of data that Append overwrites
	minLenBefore int64  // minLen before the last append over durable zeros

	// Fields of a directory.
	names  map[string]*versions
	holder *dir          // the handle that has the lock, or nil
	free   chan struct{} // closed when holder releases it
}

// span is a run of bytes in one state. It begins at the end of the previous span.
type span struct {
	end   int64
	state state
}

type state uint8

const (
	durable  state = iota // on disk
	dirty                 // in the cache; the next Sync writes it
	doubtful              // in the cache after a failed Sync: on disk or not, and no Sync writes it
)

func (s state) String() string { return [...]string{"durable", "dirty", "doubtful"}[s] }

// versions are the successive files of a name. The first version is on disk, and
// the process sees the last version.
type versions []version

type version struct {
	node      *node  // nil: the name does not exist
	seq       uint64 // number of the change
	forgotten bool   // its Sync failed, and no later Sync writes it
}

func newDirectory() *node {
	return &node{mode: fs.ModeDir, names: make(map[string]*versions)}
}

// extent holds the appended bytes and the length of a file at one time.
type extent struct{ appended, length int64 }

func (n *node) extent() extent {
	length := int64(len(n.data))
	return extent{length - n.reserved, length}
}

// append writes bytes after the last appended byte, over reserved zeros.
func (n *node) append(p []byte) {
	at := n.extent().appended
	if over := int64(copy(n.data[at:], p)); over > 0 {
		n.minLenBefore = n.minLen()
		n.changeState(at, at+over, durable, dirty)
		n.changeState(at, at+over, doubtful, dirty)
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

// endSync changes the state of bytes that were dirty at the start of a Sync. Bytes
// that were appended since then, over zeros, stay dirty.
func (n *node) endSync(at extent, to state) {
	n.changeState(0, at.appended, dirty, to)
	n.changeState(n.extent().appended, at.length, dirty, to)
}

// changeState changes bytes between two offsets from one state to another.
func (n *node) changeState(low, high int64, from, to state) {
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

// minLen returns the minimum length of the file on disk: the end of the last byte
// that is durable, or was durable before bytes were appended over it.
func (n *node) minLen() int64 {
	for i := len(n.spans) - 1; i >= 0; i-- {
		if n.spans[i].state == durable {
			return max(n.minLenBefore, n.spans[i].end)
		}
	}
	return n.minLenBefore
}

// mayLose reports whether a power cut can lose bytes of the file.
func (n *node) mayLose() bool {
	return slices.ContainsFunc(n.spans, func(s span) bool { return s.state != durable })
}

// lookup returns the node that the process sees under a name, or nil.
func (n *node) lookup(name string) *node {
	if v := n.names[name]; v != nil {
		return (*v)[len(*v)-1].node
	}
	return nil
}

// set adds a version of a name; nil removes the name.
func (n *node) set(name string, to *node, seq uint64) {
	v := n.names[name]
	if v == nil {
		v = &versions{{}} // the name does not exist on disk
		n.names[name] = v
	}
	*v = append(*v, version{node: to, seq: seq})
}

// syncNames writes the versions of all names up to seq to the disk. It returns the
// nodes that are no longer on disk.
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
