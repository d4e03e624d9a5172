
# These policies are for more than one account. Run the script in each: it does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

policies() {

# permissions of arn:aws:iam::210987654321:user/exporter, to write below the prefix
if [ "$account" = 210987654321 ]; then
inline_policy user exporter s3sink-write '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws:s3:::acme-events/segment-logs/*"
      ]
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
        "AWS": "arn:aws:iam::210987654321:user/exporter"
      },
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws:s3:::acme-events/segment-logs/*"
      ]
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
