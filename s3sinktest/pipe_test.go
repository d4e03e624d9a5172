package s3sinktest_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/s3sinktest"
)

// dial connects to a server in memory, without TLS.
func dial(t *testing.T, srv *s3sinktest.Server) (net.Conn, *http.Transport) {
	t.Helper()
	transport := srv.HTTPClient().Transport.(*http.Transport)
	conn, err := transport.DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	return conn, transport
}

// TestSilentClients closes a server whose clients have stopped reading. What
// TLS says at the end must not wait for them: net/http's locks are held then,
// and when a goroutine waits for one, a bubble's clock stands still.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := s3sinktest.NewServer(s3sinktest.InMemory(), s3sinktest.TLS())
		defer srv.Close()
		furnish(srv)
		var clients []*tls.Conn
		for range 4 {
			pipe, transport := dial(t, srv)
			config := transport.TLSClientConfig.Clone()
			config.ServerName = "s3.s3sink.test"
			client := tls.Client(pipe, config)
			req := request{method: "GET", path: "/events/none"}.build(t, srv)
			if err := req.Write(client); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(client), req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			clients = append(clients, client)
		}

		start := time.Now()
		srv.Close()
		for _, client := range clients {
			client.Close()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("closing took %v of the bubble's time", took)
		}
	})
}

func TestPipeDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		conn, _ := dial(t, srv)
		defer conn.Close()
		read := func() (time.Duration, error) {
			start := time.Now()
			_, err := conn.Read(make([]byte, 1))
			return time.Since(start), err
		}

		conn.SetReadDeadline(time.Now().Add(time.Minute))
		for _, want := range []time.Duration{time.Minute, 0} {
			if took, err := read(); took != want || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v after %v, want the deadline after %v", err, took, want)
			}
		}

		// Moved while a read waits: away, and then into the past.
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		time.AfterFunc(time.Second, func() { conn.SetReadDeadline(time.Time{}) })
		time.AfterFunc(time.Hour, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
		if took, err := read(); took != time.Hour || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v after %v, want the deadline after an hour", err, took)
		}

		conn.SetWriteDeadline(time.Now())
		if _, err := conn.Write([]byte("GET")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("late write: got %v", err)
		}

		conn.SetDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { conn.Close() })
		if took, err := read(); took != time.Second || !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("closed: got %v after %v", err, took)
		}
		if _, err := conn.Write([]byte("GET")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("write after Close: got %v", err)
		}
	})
}

// TestPipeEnd reads to the end what a server sent before it hung up.
func TestPipeEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		conn, _ := dial(t, srv)
		defer conn.Close()
		io.WriteString(conn, "GET /events/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		synctest.Wait()
		time.Sleep(time.Minute) // net/http lingers before it closes
		if _, err := conn.Write([]byte("GET")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("write to a closed server: got %v", err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || len(answer) == 0 {
			t.Errorf("got %q, %v", answer, err)
		}
	})
}
