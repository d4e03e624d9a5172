package deflate

import (
	"sync"
	"sync/atomic"
)

// Pool runs jobs that compress, in the order they came, on at most a fixed
// number of goroutines. Goroutines exist only while there is work, so an idle
// sink costs none.
type Pool struct {
	level   int
	workers int

	mu      sync.Mutex
	jobs    []func(*Encoder)
	running int
	busy    atomic.Bool // running == workers, for those without the lock
	wg      sync.WaitGroup

	encoders sync.Pool
}

// NewPool returns a pool of encoders of the given level.
func NewPool(level, workers int) (*Pool, error) {
	first, err := NewEncoder(level)
	if err != nil {
		return nil, err
	}
	p := &Pool{level: level, workers: workers}
	p.encoders.Put(first)
	return p, nil
}

// Go queues job and returns at once. The queue has no bound of its own: its
// callers queue only what a memory budget has admitted.
func (p *Pool) Go(job func(*Encoder)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, job)
	if p.running < p.workers {
		p.running++
		p.busy.Store(p.running == p.workers)
		p.wg.Go(p.work)
	}
}

// Busy reports whether a job queued now would have to wait. It is cheap
// enough to ask for every event.
func (p *Pool) Busy() bool { return p.busy.Load() }

// Wait returns when every queued job has run. No job may be queued during Wait.
func (p *Pool) Wait() { p.wg.Wait() }

func (p *Pool) work() {
	e, _ := p.encoders.Get().(*Encoder)
	if e == nil {
		e, _ = NewEncoder(p.level) // the level was checked by NewPool
	}
	defer p.encoders.Put(e)
	for {
		job, ok := p.next()
		if !ok {
			return
		}
		job(e)
	}
}

func (p *Pool) next() (job func(*Encoder), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.jobs) == 0 {
		p.jobs = nil // free the array that a burst of jobs has grown
		p.running--
		p.busy.Store(false)
		return nil, false
	}
	job = p.jobs[0]
	p.jobs[0] = nil
	p.jobs = p.jobs[1:]
	return job, true
}
