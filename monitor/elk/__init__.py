"""What Elasticsearch, Logstash and Kibana are told of our logs, from one model; pure."""
