package s3sinktest_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/s3sink/s3sink/s3sinktest"
)

func TestPutIsStoredAsSent(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey})
		body := "\x1f\x8b not really gzip \x00\xff"
		in := put("a/ü =%+.gz", body)
		in.ContentType = aws.String("application/x-ndjson")
		in.ContentEncoding = aws.String("gzip")
		in.Metadata = map[string]string{"Source": "web", "n": "1"}
		in.ServerSideEncryption = types.ServerSideEncryptionAwsKms
		in.SSEKMSKeyId = aws.String(eventsKey)
		in.ChecksumCRC32 = aws.String(crc32Of(body))
		in.ExpectedBucketOwner = aws.String(s3sinktest.AccountID)
		out, err := client.PutObject(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if *out.ChecksumCRC32 != crc32Of(body) || out.ServerSideEncryption != "aws:kms" || *out.SSEKMSKeyId != *in.SSEKMSKeyId {
			t.Errorf("answer does not echo the request: %+v", out)
		}

		obj, ok := srv.Object(events, *in.Key)
		if !ok {
			t.Fatal("object is missing")
		}
		if string(obj.Body) != body || obj.ContentType != "application/x-ndjson" || obj.ContentEncoding != "gzip" ||
			obj.SSE != "aws:kms" || obj.SSEKMSKeyID != *in.SSEKMSKeyId || obj.CRC32 != crc32Of(body) ||
			obj.ETag != *out.ETag || obj.Writes != 1 || obj.LastModified.IsZero() {
			t.Errorf("stored %+v", obj)
		}
		if want := map[string]string{"source": "web", "n": "1"}; !maps.Equal(obj.Metadata, want) {
			t.Errorf("metadata is %v, want %v", obj.Metadata, want)
		}
		checkGet(t, client, in, body)
	})
}

func checkGet(t *testing.T, client *s3.Client, in *s3.PutObjectInput, body string) {
	t.Helper()
	got, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: in.Bucket, Key: in.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	read, err := io.ReadAll(got.Body)
	if err != nil || string(read) != body {
		t.Errorf("read %q, %v", read, err)
	}
	if *got.ContentType != *in.ContentType || *got.ContentEncoding != "gzip" || got.Metadata["source"] != "web" ||
		got.ServerSideEncryption != in.ServerSideEncryption || *got.ContentLength != int64(len(body)) {
		t.Errorf("read %+v", got)
	}
	head, err := client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key})
	if err != nil || *head.ETag != *got.ETag || *head.ContentLength != int64(len(body)) {
		t.Errorf("HEAD is %+v, %v", head, err)
	}
}

func TestObjectsAreCopies(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		for _, key := range []string{"b", "a", "b"} {
			if _, err := client.PutObject(t.Context(), put(key, "body")); err != nil {
				t.Fatal(err)
			}
		}
		objects := srv.Objects(events)
		if len(objects) != 2 || objects[0].Key != "a" || objects[1].Key != "b" || objects[1].Writes != 2 {
			t.Fatalf("got %+v", objects)
		}
		objects[0].Body[0] = 'X'
		if again, _ := srv.Object(events, "a"); string(again.Body) != "body" {
			t.Errorf("changing a copy changed the object to %q", again.Body)
		}
		if srv.StoredPuts() != 3 || srv.Objects("none") != nil {
			t.Errorf("StoredPuts is %d; Objects of no bucket is %v", srv.StoredPuts(), srv.Objects("none"))
		}
	})
}

func TestPutAnswers(t *testing.T) {
	const body = "123456789"
	md := md5.Sum([]byte(body))
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		if _, err := s3Client(srv, userKeys).PutObject(t.Context(), put("taken", "old")); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name, want string
			header     map[string]string
		}{
			{"nothing special", "200", nil},
			{"MD5", "200", map[string]string{"Content-Md5": base64.StdEncoding.EncodeToString(md[:])}},
			{"wrong MD5", "400 BadDigest", map[string]string{"Content-Md5": base64.StdEncoding.EncodeToString(make([]byte, 16))}},
			{"no MD5", "400 InvalidDigest", map[string]string{"Content-Md5": "abc"}},
			// The check values of the CRC catalogue, and what sha1sum and sha256sum say.
			{"CRC-32", "200", map[string]string{"X-Amz-Checksum-Crc32": fromHex("cbf43926")}},
			{"CRC-32C", "200", map[string]string{"X-Amz-Checksum-Crc32c": fromHex("e3069283")}},
			{"CRC-64/NVME", "200", map[string]string{"X-Amz-Checksum-Crc64nvme": fromHex("ae8b14860a799888")}},
			{"SHA-1", "200", map[string]string{"X-Amz-Checksum-Sha1": fromHex("f7c3bc1d808e04732adf679965ccc34ca7ae3441")}},
			{"SHA-256", "200", map[string]string{"X-Amz-Checksum-Sha256": fromHex(hexSHA256(body))}},
			{"wrong CRC-32", "400 BadDigest", map[string]string{"X-Amz-Checksum-Crc32": fromHex("e3069283")}},
			{"wrong CRC-32C", "400 BadDigest", map[string]string{"X-Amz-Checksum-Crc32c": fromHex("cbf43926")}},
			{"wrong SHA-1", "400 BadDigest", map[string]string{"X-Amz-Checksum-Sha1": base64.StdEncoding.EncodeToString(make([]byte, 20))}},
			{"wrong SHA-256", "400 BadDigest", map[string]string{"X-Amz-Checksum-Sha256": fromHex(hexSHA256("other"))}},
			{"not a CRC-32", "400 InvalidRequest", map[string]string{"X-Amz-Checksum-Crc32": "abc"}},
			{"two checksums", "400 InvalidRequest", map[string]string{
				"X-Amz-Checksum-Crc32": fromHex("cbf43926"), "X-Amz-Checksum-Crc32c": fromHex("e3069283")}},
			{"checksum announced only", "400 InvalidRequest", map[string]string{"X-Amz-Sdk-Checksum-Algorithm": "CRC32"}},
			{"SSE-S3", "200", map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}},
			{"SSE-KMS without key", "200", map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms"}},
			{"no such SSE", "400 InvalidEncryptionAlgorithmError", map[string]string{"X-Amz-Server-Side-Encryption": "ROT13"}},
			{"SSE-S3 with key", "400 InvalidArgument", map[string]string{
				"X-Amz-Server-Side-Encryption": "AES256", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "k"}},
			{"SSE-C", "501 NotImplemented", map[string]string{"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}},
			{"other condition", "501 NotImplemented", map[string]string{"If-None-Match": `"abc"`}},
			{"If-Match", "501 NotImplemented", map[string]string{"If-Match": `"abc"`}},
			{"owner's ACL", "200", map[string]string{"X-Amz-Acl": "bucket-owner-full-control"}},
			{"public ACL", "400 AccessControlListNotSupported", map[string]string{"X-Amz-Acl": "public-read"}},
			{"storage class", "200", map[string]string{"X-Amz-Storage-Class": "STANDARD_IA"}},
			{"no such storage class", "400 InvalidStorageClass", map[string]string{"X-Amz-Storage-Class": "FLOPPY"}},
			{"another owner", "403 AccessDenied", map[string]string{"X-Amz-Expected-Bucket-Owner": "999999999999"}},
			{"copy", "501 NotImplemented", map[string]string{"X-Amz-Copy-Source": "/events/taken"}},
			{"too much metadata", "400 MetadataTooLarge", map[string]string{"X-Amz-Meta-A": strings.Repeat("x", 2048)}},
		} {
			before := srv.StoredPuts()
			got := request{method: "PUT", path: "/events/key", body: body, header: test.header}.send(t, srv)
			if got.String() != test.want {
				t.Errorf("%s: got %v, want %s\n%s", test.name, got, test.want, got.body)
			}
			if stored := srv.StoredPuts() > before; stored != (got.status == 200) {
				t.Errorf("%s: answered %v, stored: %t", test.name, got, stored)
			}
		}
	})
}

func TestPutTargets(t *testing.T) {
	long := strings.Repeat("k", 1025)
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		for _, test := range []struct {
			name, want string
			q          request
		}{
			{"no bucket", "404 NoSuchBucket", request{path: "/none/key"}},
			{"longest key", "200", request{path: "/events/" + long[1:]}},
			{"longer key", "400 KeyTooLongError", request{path: "/events/" + long}},
			{"no length", "411 MissingContentLength", request{path: "/events/key", body: "x", chunked: true}},
			{"empty body", "200", request{path: "/events/key"}},
			{"part", "501 NotImplemented", request{path: "/events/key?partNumber=1&uploadId=x"}},
			{"bucket", "501 NotImplemented", request{path: "/events"}},
		} {
			test.q.method = "PUT"
			if got := test.q.send(t, srv); got.String() != test.want {
				t.Errorf("%s: got %v, want %s\n%s", test.name, got, test.want, got.body)
			}
		}
	})
}

func TestChecksumWithoutOne(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		got := request{method: "PUT", path: "/events/key", body: "123456789"}.send(t, srv)
		if sum := got.header.Get("X-Amz-Checksum-Crc64nvme"); sum != fromHex("ae8b14860a799888") {
			t.Errorf("CRC-64/NVME is %q", sum)
		}
		if sse := got.header.Get("X-Amz-Server-Side-Encryption"); sse != "AES256" {
			t.Errorf("SSE is %q, want AES256 by default", sse)
		}
		if obj, _ := srv.Object(events, "key"); obj.SSE != "AES256" || obj.CRC32 != fromHex("cbf43926") {
			t.Errorf("stored %+v", obj)
		}
	})
}

func TestOneConditionalPutWins(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		var won, lost atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				in := put("key", "body")
				in.IfNoneMatch = aws.String("*")
				_, err := client.PutObject(t.Context(), in)
				switch status, code := failure(err); {
				case err == nil:
					won.Add(1)
				case status == 412 && code == "PreconditionFailed":
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if obj, _ := srv.Object(events, "key"); won.Load() != 1 || lost.Load() != 15 || obj.Writes != 1 {
			t.Errorf("%d won, %d lost, %d writes", won.Load(), lost.Load(), obj.Writes)
		}
	})
}

// TestCutBody ends an upload in the middle.
func TestCutBody(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		req := request{method: "PUT", path: "/events/key", body: strings.Repeat("x", 100)}.build(t, srv)
		req.Body = io.NopCloser(io.MultiReader(bytes.NewReader(make([]byte, 50)), cut{}))
		client := srv.HTTPClient()
		defer client.CloseIdleConnections()
		if _, err := client.Do(req); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("got %v, want the body's error", err)
		}
		for len(srv.Requests()) == 0 {
			runtime.Gosched() // the client gives up before the server does
		}
		if n := srv.StoredPuts(); n != 0 {
			t.Errorf("%d bodies stored", n)
		}
		requests := srv.Requests()
		if len(requests) != 1 || requests[0].Code != "IncompleteBody" || requests[0].Stored {
			t.Errorf("recorded %+v", requests)
		}
	})
}

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

// TestTooLarge sends more than the server is willing to hold.
func TestTooLarge(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		req := request{method: "PUT", path: "/events/key"}.build(t, srv)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req = req.WithContext(ctx)
		req.ContentLength = 1 << 30
		req.Body = io.NopCloser(zeros{})
		client := srv.HTTPClient()
		defer client.CloseIdleConnections()
		resp, err := client.Do(req)
		if err == nil {
			defer resp.Body.Close()
			if resp.StatusCode != 400 {
				t.Errorf("got %v", resp.Status)
			}
		} // a client that is still writing may also find the connection closed
		requests := srv.Requests()
		if last := requests[len(requests)-1]; last.Code != "EntityTooLarge" {
			t.Errorf("recorded %+v", last)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestVirtualHost(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		for _, host := range []string{"events.s3.s3sink.test", "events.localhost:1"} {
			scheme, _, _ := strings.Cut(srv.URL(), "://")
			q := request{method: "PUT", path: "/dir/key", body: host, unsigned: true}
			q.after = func(r *http.Request) {
				r.URL.Scheme, r.URL.Host, r.Host = scheme, host, host
				q.sign(t, r)
			}
			if got := q.send(t, srv); got.String() != "200" {
				t.Errorf("%s: got %v %s", host, got, got.body)
			}
			if obj, _ := srv.Object(events, "dir/key"); string(obj.Body) != host {
				t.Errorf("%s: stored %q", host, obj.Body)
			}
		}
	})
}
