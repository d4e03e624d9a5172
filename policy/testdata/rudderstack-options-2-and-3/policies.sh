
# These policies are for more than one account. Run the script in each: it does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

policies() {

# permissions of arn:aws:iam::210987654321:user/s3-copy, to write below the prefix
if [ "$account" = 210987654321 ]; then
inline_policy user s3-copy s3sink-write '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws:s3:::acme-events/rudder-logs/*"
      ]
    },
    {
      "Sid": "UseKeyThroughS3",
      "Effect": "Allow",
      "Action": [
        "kms:GenerateDataKey"
      ],
      "Resource": [
        "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
      ],
      "Condition": {
        "StringLike": {
          "kms:ViaService": [
            "s3.*.amazonaws.com",
            "s3.*.amazonaws.com.cn"
          ]
        }
      }
    }
  ]
}'
fi

# bucket policy of arn:aws:s3:::acme-events, because the bucket is in another account than whoever writes
if [ "$account" != 210987654321 ]; then
bucket_policy acme-events '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws:iam::210987654321:user/s3-copy"
      },
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws:s3:::acme-events/rudder-logs/*"
      ]
    }
  ]
}'
fi

# key policy of arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab, because the key is in another account than whoever writes
if [ "$account" = 123456789012 ]; then
key_policy 'arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab' eu-west-1 '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "UseThroughS3",
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws:iam::210987654321:user/s3-copy"
      },
      "Action": [
        "kms:GenerateDataKey"
      ],
      "Resource": [
        "*"
      ],
      "Condition": {
        "StringLike": {
          "kms:ViaService": [
            "s3.*.amazonaws.com",
            "s3.*.amazonaws.com.cn"
          ]
        }
      }
    }
  ]
}'
fi

}

lacking=
pass=read
policies
if [ -n "$lacking" ]; then
	stop 3 'Nothing was changed. Read the policies above. To write them, run this again with APPLY_MERGED=1 in the environment.'
fi
pass=write
policies
