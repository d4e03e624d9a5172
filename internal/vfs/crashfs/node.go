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

	// Of a file. Bytes in data never change, because images share them.
	data  []byte
	spans []span // of data, from the first byte to the last

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

// append adds bytes behind the others.
func (n *node) append(p []byte) {
	n.data = append(n.data, p...)
	if len(p) > 0 {
		n.spans = extend(n.spans, int64(len(n.data)), dirty)
	}
}

func extend(spans []span, end int64, s state) []span {
	if last := len(spans) - 1; last >= 0 && spans[last].state == s {
		spans[last].end = end
		return spans
	}
	return append(spans, span{end, s})
}

// turn changes the state of bytes below a limit from one to another.
func (n *node) turn(limit int64, from, to state) {
	var spans []span
	start := int64(0)
	for _, s := range n.spans {
		if s.state == from && start < limit {
			spans = extend(spans, min(s.end, limit), to)
		}
		if s.state != from || s.end > limit {
			spans = extend(spans, s.end, s.state)
		}
		start = s.end
	}
	n.spans = spans
}

// certain returns the end of the last durable byte: the file on disk is at
// least so long.
func (n *node) certain() int64 {
	for i := len(n.spans) - 1; i >= 0; i-- {
		if n.spans[i].state == durable {
			return n.spans[i].end
		}
	}
	return 0
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
		fmt.Fprintf(b, " file of %d", len(n.data))
		start := int64(0)
		for _, s := range n.spans {
			fmt.Fprintf(b, " [%d,%d) %v", start, s.end, s.state)
			start = s.end
		}
	}
}
