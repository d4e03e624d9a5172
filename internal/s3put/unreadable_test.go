package s3put_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/s3sink/s3sink/internal/s3put"
)

// halfBody is a body whose reads fail before its end.
type halfBody struct{ *bytes.Reader }

func (b halfBody) Read(p []byte) (int, error) {
	if b.Len() < 500_000 {
		return 0, syscall.EIO
	}
	return b.Reader.Read(p)
}

// Given a body that cannot be read to its end, when the server answers 400 or closes
// the connection, then the error has class Unreadable and wraps the read error.
func TestUnreadableBody(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"reads on": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusBadRequest)
		},
		"hangs up": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(answer)
			defer server.Close()
			cfg, _, err := s3put.LoadConfig(t.Context(), &aws.Config{}, server.Client(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			c := s3put.New(s3put.Settings{
				AWS: cfg, Bucket: "events", Region: "eu-west-1", Endpoint: server.URL, PathStyle: true,
				Credentials: func(string) aws.CredentialsProvider {
					return credentials.NewStaticCredentialsProvider("AKIA", "secret", "")
				},
			})
			defer c.Close()
			r := request()
			r.Size = 1 << 20
			r.Body = halfBody{bytes.NewReader(make([]byte, r.Size))}
			_, err = c.Put(t.Context(), r)
			var e *s3put.Error
			if !errors.As(err, &e) || e.Class != s3put.Unreadable || !errors.Is(err, syscall.EIO) {
				t.Errorf("%v", err)
			}
		})
	}
}
