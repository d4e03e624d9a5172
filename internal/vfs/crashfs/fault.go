package crashfs

import (
	"errors"
	"fmt"
	"syscall"
)

// Op is an operation that is about to begin.
type Op struct {
	N    int    // counts all operations, from 0
	Call Call   // what it does
	Name string // of the entry, with the subdirectory; "." is the directory
	Len  int    // of Append, Reserve and Read: how many bytes
}

// Call is the word for an operation, as in the errors of package vfs.
type Call string

// The operations. Sub is CallMkdir whether or not it makes the directory.
const (
	CallCreate  Call = "create"
	CallOpen    Call = "open"
	CallRemove  Call = "remove"
	CallList    Call = "list"
	CallSyncDir Call = "syncdir"
	CallMkdir   Call = "mkdir"
	CallLock    Call = "lock"
	CallNote    Call = "note"
	CallSetNote Call = "setnote"
	CallAppend  Call = "append"
	CallReserve Call = "reserve"
	CallRead    Call = "read"
	CallSync    Call = "sync"
	CallStat    Call = "stat"
	CallClose   Call = "close"
)

// Kind is a way for an operation to fail.
type Kind int

// Ways to fail. Those that leave nothing undone are last.
const (
	EIO    Kind = 1 + iota // nothing is done; a Sync may have been
	ENOSPC                 // likewise
	EINTR                  // likewise
	EROFS                  // likewise
	EMFILE                 // likewise
	Short                  // an Append or Reserve writes a part, then ENOSPC; for others as ENOSPC
	Late                   // everything is done, and EIO returned all the same
	Stop                   // the process ends here; an Append or Reserve may have written a part
)

var kinds = [...]string{"", "EIO", "ENOSPC", "EINTR", "EROFS", "EMFILE", "Short", "Late", "Stop"}

func (k Kind) String() string { return kinds[k] }

// Kinds returns all kinds but Stop.
func Kinds() []Kind { return []Kind{EIO, ENOSPC, EINTR, EROFS, EMFILE, Short, Late} }

// FailAt has operation n fail. It may be called for several operations.
func (f *FS) FailAt(n int, kind Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planned[n] = kind
}

// Tripped reports whether one of those operations has come.
func (f *FS) Tripped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tripped
}

// Inject has a function decide about each operation that FailAt does not. It
// returns nil, an error, or one of [Partly]. It is called without a lock, by
// the goroutine of the operation and before anything is done: it may wait, to
// be a slow disk, and use the FS and its files.
func (f *FS) Inject(fault func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = fault
}

// Partly is a failure of an operation that does something nevertheless: an
// Append or Reserve writes n bytes; any other is done if n > 0.
func Partly(n int, err error) error { return &partly{n, err} }

type partly struct {
	n   int
	err error
}

func (p *partly) Error() string { return fmt.Sprintf("%v (after %d)", p.err, p.n) }
func (p *partly) Unwrap() error { return p.err }

// outcome is what is to become of an operation.
type outcome struct {
	done int // bytes of an Append or Reserve, or > 0
	err  error
}

// begin counts an operation and decides about it. The caller takes the lock
// then, and asks again whether the process has ended.
func (f *FS) begin(call Call, name string, length int) outcome {
	f.mu.Lock()
	if f.hasStopped() {
		f.mu.Unlock()
		return outcome{err: ErrStopped}
	}
	op := Op{N: f.ops, Call: call, Name: name, Len: length}
	f.ops++
	kind, hook := f.planned[op.N], f.hook
	f.tripped = f.tripped || kind != 0
	f.mu.Unlock()

	var err error
	switch {
	case kind != 0:
		err = f.plan(kind, op)
	case hook != nil:
		err = hook(op)
	}
	if err == nil {
		return outcome{done: max(length, 1)}
	}
	if part := (*partly)(nil); errors.As(err, &part) {
		return outcome{done: min(part.n, max(length, 1)), err: part.err}
	}
	return outcome{err: err}
}

// plan returns the error of a kind.
func (f *FS) plan(kind Kind, op Op) error {
	part := 0
	if (op.Call == CallAppend || op.Call == CallReserve) && op.Len > 0 {
		part = f.rng(op.N).IntN(op.Len)
	}
	switch kind {
	case Short:
		return Partly(part, syscall.ENOSPC)
	case Late:
		return Partly(max(op.Len, 1), syscall.EIO)
	case Stop:
		return Partly(part, ErrStopped)
	case ENOSPC:
		return syscall.ENOSPC
	case EINTR:
		return syscall.EINTR
	case EROFS:
		return syscall.EROFS
	case EMFILE:
		return syscall.EMFILE
	}
	return syscall.EIO
}
