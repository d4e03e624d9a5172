package crashfs

import (
	"errors"
	"fmt"
	"syscall"
)

// Op is an operation that is about to begin.
type Op struct {
	N    int    // number of the operation, from 0
	Call Call   // kind of operation
	Name string // path of the entry; "." is the directory
	Len  int    // number of bytes of an Append, Reserve or Read
}

// Call is the name of an operation, as in the errors of package vfs.
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

// The kinds of failures.
const (
	EIO    Kind = 1 + iota // the operation has no effect; a Sync may have written bytes
	ENOSPC                 // same effect as EIO
	EINTR                  // same effect as EIO
	EROFS                  // same effect as EIO
	EMFILE                 // same effect as EIO
	Short                  // an Append or Reserve writes a part, then ENOSPC; for others as ENOSPC
	Late                   // the operation has its whole effect, and returns EIO
	Stop                   // the process ends here; an Append or Reserve may have written a part
)

var kinds = [...]string{"", "EIO", "ENOSPC", "EINTR", "EROFS", "EMFILE", "Short", "Late", "Stop"}

func (k Kind) String() string { return kinds[k] }

// Kinds returns all kinds but Stop.
func Kinds() []Kind { return []Kind{EIO, ENOSPC, EINTR, EROFS, EMFILE, Short, Late} }

// FailAt makes operation n fail. It may be called for several operations.
func (f *FS) FailAt(n int, kind Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planned[n] = kind
}

// Tripped reports whether an operation of FailAt has begun.
func (f *FS) Tripped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tripped
}

// Inject sets a function that decides about each operation without a FailAt. The
// function returns nil, an error, or an error of [Partly]. It runs before the
// operation, on its goroutine and without a lock. So it may wait, to simulate a
// slow disk, and may use the FS and its files.
func (f *FS) Inject(fault func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = fault
}

// Partly returns an error for an operation that still has an effect: an Append or
// Reserve writes n bytes; any other operation has its whole effect if n > 0.
func Partly(n int, err error) error { return &partly{n, err} }

type partly struct {
	n   int
	err error
}

func (p *partly) Error() string { return fmt.Sprintf("%v (after %d)", p.err, p.n) }
func (p *partly) Unwrap() error { return p.err }

// outcome is the decision about an operation.
type outcome struct {
	done int // bytes that an Append or Reserve writes; for others > 0 means an effect
	err  error
}

// begin counts an operation and decides about it. The caller then takes the lock
// and checks again, by admit, whether the process has ended.
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
		err = f.planError(kind, op)
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

// planError returns the error of a planned failure.
func (f *FS) planError(kind Kind, op Op) error {
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
