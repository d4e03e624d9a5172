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

// ErrStopped is the error of every operation of an ended process: its FS was
// stopped, or Kill or Crash made an image of it.
var ErrStopped = errors.New("crashfs: the process has ended")

// FS is a disk, the kernel's page cache, and the process that uses them. It is safe
// for concurrent use. The same operations on a new FS with the same seed have the
// same results.
type FS struct {
	seed uint64

	mu      sync.Mutex
	root    *node
	note    []byte // on disk
	ops     int
	seq     uint64 // number of the last change of a name
	stopped chan struct{}
	forget  bool
	hook    func(Op) error
	planned map[int]Kind
	tripped bool
	handles map[handle]string
	stale   []byte // content of the disk's free blocks

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

// Dir opens the directory. Each call returns another handle, and each handle locks
// separately.
func (f *FS) Dir() vfs.Dir {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newDir(f.root, "")
}

// Stop ends the process: all later operations fail, and calls that wait for the
// lock return at once.
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

// Ops returns the number of operations that have begun.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Handles returns the names of open files and directories; "." is the directory
// itself.
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

// ForgetNames makes a failed Sync of a directory lose names, as a failed Sync of a
// file loses bytes. Call it before the first operation.
func (f *FS) ForgetNames() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget = true
}

// SetCapacity bounds the bytes of all files. A write past it is partial and fails
// with ENOSPC; creating a file on a full disk fails too. A removed file keeps its
// bytes until a Sync of the directory, and as long as it is open.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// freeLocked returns the number of bytes left for files to grow.
func (f *FS) freeLocked() int64 {
	if f.capacity == 0 {
		return math.MaxInt64
	}
	counted := map[*node]bool{}
	f.root.collectFiles(counted)
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

// collectFiles adds the files of all versions of all names.
func (n *node) collectFiles(all map[*node]bool) {
	for _, versions := range n.names {
		for _, v := range *versions {
			switch {
			case v.node == nil:
			case v.node.names == nil:
				all[v.node] = true
			default:
				v.node.collectFiles(all)
			}
		}
	}
}

// Put makes an entry that is on disk at once: a foreign or damaged file, or, with
// type bits in mode, an entry that is not a regular file. The name may be a path
// below an existing directory.
func (f *FS) Put(name string, mode fs.FileMode, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base := f.lookupDir(name)
	n := &node{mode: mode.Type()}
	if mode.IsDir() {
		n = newDirectory()
	}
	n.append(slices.Clone(data))
	n.endSync(n.extent(), durable)
	dir.names[base] = &versions{{node: n}}
}

// ReadFile returns the bytes that a reader would see, and whether the file exists.
// It does not count as an operation.
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

// lookupDir returns the directory of a path and the path's last element. It panics
// if the directory does not exist.
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

// rng returns the random source of one operation.
func (f *FS) rng(op int) *rand.Rand { return rand.New(rand.NewPCG(f.seed, uint64(op))) }

// String describes the state of all files and names.
func (f *FS) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "operations: %d, stopped: %t, open: %d\n", f.ops, f.hasStopped(), len(f.handles))
	f.root.draw(&b, "")
	return b.String()
}
