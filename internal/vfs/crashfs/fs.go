package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/s3sink/s3sink/internal/vfs"
)

// ErrStopped is what every operation returns to a process that is no more: its
// FS was stopped, or an image of it was made.
var ErrStopped = errors.New("crashfs: the process has ended")

// FS is a disk, the kernel's cache above it, and the process that uses both.
// It is safe for concurrent use. The same operations on a new FS of the same
// seed do the same.
type FS struct {
	seed uint64

	mu      sync.Mutex
	root    *node
	note    []byte // on disk
	ops     int
	seq     uint64 // of the last change of a name
	stopped chan struct{}
	forget  bool
	hook    func(Op) error
	planned map[int]Kind
	tripped bool
	handles map[handle]string
	stale   []byte // what is in the disk's free blocks

	capacity int64 // bytes of all files; 0: no limit
}

// handle is an open file or directory.
type handle any

// New returns an empty directory.
func New(seed uint64) *FS {
	return &FS{
		seed:    seed,
		root:    newDirectory(),
		stopped: make(chan struct{}),
		planned: make(map[int]Kind),
		handles: make(map[handle]string),
	}
}

// Dir opens the directory. Each call is another handle, with its own part in
// the lock.
func (f *FS) Dir() vfs.Dir {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newDir(f.root, "")
}

// Stop ends the process: all operations fail from now on, those that wait for
// the lock at once.
func (f *FS) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopLocked()
}

func (f *FS) stopLocked() {
	if !f.hasStopped() {
		close(f.stopped)
	}
}

func (f *FS) hasStopped() bool {
	select {
	case <-f.stopped:
		return true
	default:
		return false
	}
}

// Ops returns how many operations have begun.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Handles returns the names of files and directories that are open; the
// directory itself is ".".
func (f *FS) Handles() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for _, name := range f.handles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ForgetNames has a failed Sync of a directory lose names as that of a file
// loses bytes. Call it before the first operation.
func (f *FS) ForgetNames() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget = true
}

// SetCapacity bounds the bytes of all files: a write past it does a part and
// fails with ENOSPC, and so does the creation of a file. A removed file takes
// its bytes until a Sync of the directory, and while somebody has it open.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// freeLocked returns how many bytes files may grow by.
func (f *FS) freeLocked() int64 {
	if f.capacity == 0 {
		return math.MaxInt64
	}
	counted := map[*node]bool{}
	f.root.collect(counted)
	for h := range f.handles {
		if h, ok := h.(*file); ok {
			counted[h.node] = true
		}
	}
	free := f.capacity
	for n := range counted {
		free -= int64(len(n.data))
	}
	return max(0, free)
}

// collect notes the files that any version of a name stands for.
func (n *node) collect(all map[*node]bool) {
	for _, versions := range n.names {
		for _, v := range *versions {
			switch {
			case v.node == nil:
			case v.node.names == nil:
				all[v.node] = true
			default:
				v.node.collect(all)
			}
		}
	}
}

// Put lays something on the disk, as if it had always been there: a file that
// someone else has written or damaged, or, with type bits, something that is
// not a regular file. The name may be below a directory that exists.
func (f *FS) Put(name string, mode fs.FileMode, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base := f.lookupDir(name)
	n := &node{mode: mode.Type()}
	if mode.IsDir() {
		n = newDirectory()
	}
	n.append(slices.Clone(data))
	n.settle(n.extent(), durable)
	dir.names[base] = &versions{{node: n}}
}

// ReadFile returns the bytes that a reader would see, and whether there is such
// a file. It is not an operation.
func (f *FS) ReadFile(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base := f.lookupDir(name)
	n := dir.lookup(base)
	if n == nil || n.mode != 0 {
		return nil, false
	}
	return slices.Clone(n.data), true
}

// lookupDir returns the directory of a path, which must be there.
func (f *FS) lookupDir(path string) (*node, string) {
	dir := f.root
	for {
		first, rest, below := strings.Cut(path, "/")
		if !below {
			return dir, path
		}
		if dir = dir.lookup(first); dir == nil || dir.names == nil {
			panic(fmt.Sprintf("crashfs: there is no directory %q", first))
		}
		path = rest
	}
}

// rng is for what an operation does by chance.
func (f *FS) rng(op int) *rand.Rand { return rand.New(rand.NewPCG(f.seed, uint64(op))) }

// String draws the state of all files and names.
func (f *FS) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "operations: %d, stopped: %t, open: %d\n", f.ops, f.hasStopped(), len(f.handles))
	f.root.draw(&b, "")
	return b.String()
}
