package s3sinktest_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/s3sink/s3sink/s3sinktest"
)

func TestReadAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		if _, err := s3Client(srv, userKeys).PutObject(t.Context(), put("key", "<html>")); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			want string
			q    request
		}{
			{"200", request{method: "GET", path: "/events/key"}},
			{"200", request{method: "GET", path: "/events/key?x-id=GetObject"}},
			{"200", request{method: "HEAD", path: "/events/key"}},
			{"404 NoSuchKey", request{method: "GET", path: "/events/none"}},
			{"404", request{method: "HEAD", path: "/events/none"}},
			{"404 NoSuchBucket", request{method: "GET", path: "/none/key"}},
			{"403 AccessDenied", request{method: "GET", path: "/events/key", unsigned: true}},
			{"403 AccessDenied", request{method: "GET", path: "/events?list-type=2", unsigned: true}},
			{"501 NotImplemented", request{method: "GET", path: "/events/key", header: map[string]string{"Range": "bytes=0-1"}}},
			{"501 NotImplemented", request{method: "GET", path: "/events/key?versionId=1"}},
			{"501 NotImplemented", request{method: "GET", path: "/events"}},
			{"501 NotImplemented", request{method: "GET", path: "/"}},
			{"501 NotImplemented", request{method: "POST", path: "/events/key?uploads"}},
			{"405 MethodNotAllowed", request{method: "DELETE", path: "/events/key"}},
			{"200", request{method: "GET", path: "/events?list-type=2"}},
			{"400 InvalidArgument", request{method: "GET", path: "/events?list-type=2&max-keys=-1"}},
			{"400 InvalidArgument", request{method: "GET", path: "/events?list-type=2&max-keys=x"}},
			{"400 InvalidArgument", request{method: "GET", path: "/events?list-type=2&encoding-type=x"}},
			{"400 InvalidArgument", request{method: "GET", path: "/events?list-type=2&continuation-token=*"}},
			{"400 InvalidArgument", request{method: "GET", path: "/events?list-type=2&continuation-token="}},
		} {
			got := test.q.send(t, srv)
			if got.String() != test.want {
				t.Errorf("%s %s: got %v, want %s\n%s", test.q.method, test.q.path, got, test.want, got.body)
			}
			if got.header.Get("Server") != "AmazonS3" || got.header.Get("X-Amz-Request-Id") == "" || got.header.Get("Date") == "" {
				t.Errorf("%s %s: headers %v", test.q.method, test.q.path, got.header)
			}
		}
	})
}

func TestTypeIsNotGuessed(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		request{method: "PUT", path: "/events/key", body: "<html>"}.send(t, srv)
		got := request{method: "GET", path: "/events/key"}.send(t, srv)
		if typ := got.header.Get("Content-Type"); typ != "binary/octet-stream" {
			t.Errorf("type is %q", typ)
		}
		if got.header.Get("X-Amz-Checksum-Crc64nvme") != "" {
			t.Error("checksum sent without being asked for")
		}
	})
}

func TestHeadBucket(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		for _, test := range []struct {
			name, want, region string
			q                  request
		}{
			{"signed", "200", region, request{path: "/events"}},
			{"slash", "200", region, request{path: "/events/"}},
			{"unsigned", "403", region, request{path: "/events", unsigned: true}},
			{"wrong region", "400", region, request{path: "/events", region: "us-east-1"}},
			{"wrong secret", "403", region, request{path: "/events", keys: aws.Credentials{AccessKeyID: keyID, SecretAccessKey: "wrong"}}},
			{"another owner", "403", region, request{path: "/events", header: map[string]string{"X-Amz-Expected-Bucket-Owner": "999999999999"}}},
			{"no bucket", "404", "", request{path: "/none"}},
			{"no bucket, unsigned", "404", "", request{path: "/none", unsigned: true}},
		} {
			test.q.method = "HEAD"
			got := test.q.send(t, srv)
			if got.String() != test.want || got.header.Get("X-Amz-Bucket-Region") != test.region || len(got.body) > 0 {
				t.Errorf("%s: got %v in %q, want %s in %q", test.name, got, got.header.Get("X-Amz-Bucket-Region"), test.want, test.region)
			}
		}
	})
}

func TestPaginator(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		const count = 2500
		for i := range count {
			if _, err := client.PutObject(t.Context(), put(fmt.Sprintf("dir/%04d", i), "x")); err != nil {
				t.Fatal(err)
			}
		}
		var keys []string
		var pages int
		pager := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: aws.String(events), Prefix: aws.String("dir/")})
		for pager.HasMorePages() {
			page, err := pager.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, o := range page.Contents {
				keys = append(keys, *o.Key)
			}
		}
		if len(keys) != count || !slices.IsSorted(keys) || len(slices.Compact(keys)) != count || pages != 3 {
			t.Errorf("%d keys on %d pages", len(keys), pages)
		}
	})
}

func TestListings(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		for _, key := range []string{"a", "a/1", "a/2", "a0", "b/1/x", "b/1/y", "b/2", "c d"} {
			if _, err := client.PutObject(t.Context(), put(key, "x")); err != nil {
				t.Fatal(err)
			}
		}
		for _, test := range []struct {
			name string
			in   s3.ListObjectsV2Input
			want string
		}{
			{"all", s3.ListObjectsV2Input{}, "a a/1 a/2 a0 b/1/x b/1/y b/2 c d"},
			{"prefix", s3.ListObjectsV2Input{Prefix: aws.String("a/")}, "a/1 a/2"},
			{"delimiter", s3.ListObjectsV2Input{Delimiter: aws.String("/")}, "a a/ a0 b/ c d"},
			{"both", s3.ListObjectsV2Input{Prefix: aws.String("b/"), Delimiter: aws.String("/")}, "b/1/ b/2"},
			{"start after", s3.ListObjectsV2Input{StartAfter: aws.String("a0")}, "b/1/x b/1/y b/2 c d"},
			{"start after, delimiter", s3.ListObjectsV2Input{StartAfter: aws.String("a/1"), Delimiter: aws.String("/")}, "a/ a0 b/ c d"},
			{"encoded", s3.ListObjectsV2Input{EncodingType: "url", Prefix: aws.String("c ")}, "c+d"},
			{"nothing", s3.ListObjectsV2Input{Prefix: aws.String("z")}, ""},
		} {
			for _, perPage := range []int32{1, 2, 1000} {
				in := test.in
				in.MaxKeys = aws.Int32(perPage)
				if got := listAll(t, client, in); got != test.want {
					t.Errorf("%s, %d per page: got %q, want %q", test.name, perPage, got, test.want)
				}
			}
		}
		none, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(events), MaxKeys: aws.Int32(0)})
		if err != nil || *none.KeyCount != 0 || len(none.Contents) != 0 || *none.IsTruncated {
			t.Errorf("max-keys=0: got %+v, %v", none, err)
		}
	})
}

// listAll joins keys and common prefixes, page by page in the order of names.
func listAll(t *testing.T, client *s3.Client, in s3.ListObjectsV2Input) string {
	t.Helper()
	in.Bucket = aws.String(events)
	var all []string
	pager := s3.NewListObjectsV2Paginator(client, &in)
	for pager.HasMorePages() {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range page.Contents {
			names = append(names, *o.Key)
		}
		for _, p := range page.CommonPrefixes {
			names = append(names, *p.Prefix)
		}
		if int(*page.KeyCount) != len(names) || len(names) > int(*in.MaxKeys) {
			t.Errorf("%d names, KeyCount %d, MaxKeys %d", len(names), *page.KeyCount, *in.MaxKeys)
		}
		slices.Sort(names)
		all = append(all, names...)
	}
	return strings.Join(all, " ")
}

// failure takes the status and the code out of an SDK error.
func failure(err error) (status int, code string) {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	return status, code
}

func crc32Of(body string) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body))))
}

func fromHex(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}
