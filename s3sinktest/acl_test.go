package s3sinktest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/s3sink/s3sink/s3sinktest"
)

func TestOwnership(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		for _, test := range []struct{ ownership, acl, want string }{
			{"", "bucket-owner-full-control", "200"},
			{"", "private", "400 AccessControlListNotSupported"},
			{"BucketOwnerEnforced", "public-read", "400 AccessControlListNotSupported"},
			{"BucketOwnerPreferred", "public-read", "200"},
			{"ObjectWriter", "private", "200"},
			{"ObjectWriter", "friends", "400 InvalidArgument"},
		} {
			srv.ConfigureBucket(events, s3sinktest.BucketSettings{Ownership: test.ownership})
			got := request{method: "PUT", path: "/events/a", header: map[string]string{"X-Amz-Acl": test.acl}}.send(t, srv)
			if got.String() != test.want {
				t.Errorf("%s, %s: got %v, want %s", test.ownership, test.acl, got, test.want)
			}
			if obj, _ := srv.Object(events, "a"); got.status == 200 && obj.ACL != test.acl {
				t.Errorf("%s, %s: recorded %q", test.ownership, test.acl, obj.ACL)
			}
		}
		got := request{method: "PUT", path: "/events/a", header: map[string]string{"X-Amz-Grant-Read": "id=x"}}.send(t, srv)
		if got.String() != "501 NotImplemented" {
			t.Errorf("grant: got %v", got)
		}
	})
}

// TestHeadersNeedActions takes away, one by one, what a put with all headers
// needs.
func TestHeadersNeedActions(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.AddKMSKey(s3sinktest.KMSKey{ARN: eventsKey})
		q := request{method: "PUT", path: "/events/a", header: map[string]string{
			"X-Amz-Acl": "bucket-owner-full-control", "X-Amz-Tagging": "a=b",
			"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": eventsKey,
		}}
		all := []string{"s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging", "kms:GenerateDataKey"}
		srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}, Actions: all})
		q.keys = assumeHop(t, srv)
		if got := q.send(t, srv); got.String() != "200" {
			t.Errorf("with all: got %v", got)
		}
		for i, missing := range all {
			srv.AddRole(s3sinktest.Role{ARN: hop, Actions: slices.Delete(slices.Clone(all), i, i+1)})
			got := q.send(t, srv)
			if got.String() != "403 AccessDenied" || !strings.Contains(got.message, "to perform: "+missing+" on") {
				t.Errorf("without %s: got %v %s", missing, got, got.message)
			}
		}
	})
}

func TestTags(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		ten := strings.TrimSuffix(strings.Repeat("k%=&", 10), "&")
		for i := range 10 {
			ten = strings.Replace(ten, "%", string(rune('0'+i)), 1)
		}
		for header, want := range map[string]string{
			"a=b":                                    "200",
			"cost+centre=a%3Db&env=pr%C3%B6d&empty=": "200",
			ten:                                      "200",
			ten + "&one=more":                        "400 BadRequest",
			"a=1&a=2":                                "400 InvalidArgument",
			"a=%zz":                                  "400 InvalidArgument",
			"=b":                                     "400 InvalidTag",
			"aws:x=b":                                "400 InvalidTag",
			"a=b%26c":                                "400 InvalidTag",
			strings.Repeat("k", 128) + "=":           "200",
			strings.Repeat("k", 129) + "=":           "400 InvalidTag",
			"k=" + strings.Repeat("v", 256):          "200",
			"k=" + strings.Repeat("v", 257):          "400 InvalidTag",
		} {
			got := request{method: "PUT", path: "/events/a", header: map[string]string{"X-Amz-Tagging": header}}.send(t, srv)
			if got.String() != want {
				t.Errorf("%q: got %v, want %s", header, got, want)
			}
		}
		request{method: "PUT", path: "/events/b", header: map[string]string{"X-Amz-Tagging": "cost+centre=a%3Db&e="}}.send(t, srv)
		if obj, _ := srv.Object(events, "b"); !maps.Equal(obj.Tags, map[string]string{"cost centre": "a=b", "e": ""}) {
			t.Errorf("recorded %v", obj.Tags)
		}
	})
}

func TestHeadersAreRecorded(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		in := put("key", "body")
		in.ACL = types.ObjectCannedACLBucketOwnerFullControl
		in.StorageClass = types.StorageClassStandardIa
		in.Tagging = aws.String("a=b")
		in.CacheControl, in.ContentDisposition, in.ContentLanguage = aws.String("no-store"), aws.String("inline"), aws.String("de")
		if _, err := client.PutObject(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		obj, _ := srv.Object(events, "key")
		if obj.ACL != "bucket-owner-full-control" || obj.StorageClass != "STANDARD_IA" || obj.Tags["a"] != "b" ||
			obj.CacheControl != "no-store" || obj.ContentDisposition != "inline" || obj.ContentLanguage != "de" {
			t.Errorf("recorded %+v", obj)
		}
		head, err := client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key})
		if err != nil || head.StorageClass != types.StorageClassStandardIa || *head.CacheControl != "no-store" {
			t.Errorf("HEAD is %+v, %v", head, err)
		}
	})
}
