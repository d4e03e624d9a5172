package s3sinktest

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// newPipe connects two ends in memory. A write is buffered, as by a socket, but
// without bound, so that it never waits for a reader. That is why this is not a
// net.Pipe, on which a bubble with TLS can stop for good:
//
//   - http.Server.Close closes connection A with the server's lock held. That
//     sends a close_notify, which crypto/tls gives up after 5 seconds.
//   - The client is closing A too, so it does not read, and writes one itself.
//   - The goroutine that serves A, or any other that has ended, wants the lock
//     to unregister.
//
// Waiting for a mutex does not count as idle in a bubble. Its clock stands, and
// the 5 seconds never end. A net/http client also closes with a lock held.
func newPipe() (client, server net.Conn) {
	up, down := newStream(), newStream()
	return &pipeEnd{in: down, out: up}, &pipeEnd{in: up, out: down}
}

// pipeEnd is one end of a connection. It returns the same errors as net.Pipe.
type pipeEnd struct{ in, out *stream }

func (e *pipeEnd) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }

// Close keeps written bytes for the other end to read.
func (e *pipeEnd) Close() error {
	e.in.closeReader()
	e.out.closeWriter()
	return nil
}

func (e *pipeEnd) SetDeadline(t time.Time) error {
	e.in.setReadDeadline(t)
	e.out.setWriteDeadline(t)
	return nil
}

func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.setReadDeadline(t)
	return nil
}

func (e *pipeEnd) SetWriteDeadline(t time.Time) error {
	e.out.setWriteDeadline(t)
	return nil
}

func (e *pipeEnd) LocalAddr() net.Addr  { return pipeAddr{} }
func (e *pipeEnd) RemoteAddr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return memoryHost }

// stream is one direction of a pipe.
type stream struct {
	mu         sync.Mutex // guards everything below; held for no wait
	readable   sync.Cond  // told when a blocked read has something to return
	unread     bytes.Buffer
	readerGone bool
	writerGone bool
	readLate   bool        // the read deadline has passed
	readAlarm  *time.Timer // sets readLate
	writeBy    time.Time
}

func newStream() *stream {
	s := new(stream)
	s.readable.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readerGone:
			return 0, io.ErrClosedPipe
		case s.readLate:
			return 0, os.ErrDeadlineExceeded
		case s.unread.Len() > 0:
			return s.unread.Read(p)
		case s.writerGone:
			return 0, io.EOF
		}
		s.readable.Wait()
	}
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readerGone || s.writerGone {
		return 0, io.ErrClosedPipe
	}
	if !s.writeBy.IsZero() && !time.Now().Before(s.writeBy) {
		return 0, os.ErrDeadlineExceeded
	}
	s.readable.Broadcast()
	return s.unread.Write(p)
}

func (s *stream) closeReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readerGone = true
	s.unread = bytes.Buffer{}
	s.stopAlarmLocked()
	s.readable.Broadcast()
}

func (s *stream) closeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writerGone = true
	s.readable.Broadcast()
}

// setReadDeadline also wakes reads that have begun: net/http's server takes its
// background read back with a deadline in the past.
func (s *stream) setReadDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopAlarmLocked()
	left := time.Until(t)
	s.readLate = !t.IsZero() && left <= 0
	if s.readLate {
		s.readable.Broadcast()
	}
	if t.IsZero() || s.readLate || s.readerGone {
		return
	}
	var alarm *time.Timer
	alarm = time.AfterFunc(left, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.readAlarm == alarm { // else the deadline was moved just as it passed
			s.readLate = true
			s.readable.Broadcast()
		}
	})
	s.readAlarm = alarm
}

func (s *stream) stopAlarmLocked() {
	if s.readAlarm != nil {
		s.readAlarm.Stop()
		s.readAlarm = nil
	}
}

func (s *stream) setWriteDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy = t
}
