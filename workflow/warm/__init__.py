"""Jobs without imports: for each script a process that has imported all, and forks for each job."""
