package spool

// commitLock is a mutex that is held during disk operations. It is a channel,
// because testing/synctest sees a goroutine as blocked when it waits for a
// channel, and not when it waits for a sync.Mutex: a slow disk could not be
// simulated while another goroutine waits for the lock.
type commitLock chan struct{}

func newCommitLock() commitLock { return make(commitLock, 1) }

func (l commitLock) Lock()   { l <- struct{}{} }
func (l commitLock) Unlock() { <-l }

// TryLock locks l if no goroutine holds it, and reports whether it did.
func (l commitLock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}
